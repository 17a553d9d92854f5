"""Database connections that worker threads keep open between calls.

Opening a connection takes longer than most queries. With ``CONN_MAX_AGE: 0``, Django closes
connections after each request; worker threads keep theirs for a short time while a hub runs, so
that clients that arrive together do not open one each. Other values of ``CONN_MAX_AGE`` apply as
they are, and connections of a pool are returned to it after each call.

Only the connections of PostgreSQL and SQLite are kept. Before a call, those of PostgreSQL are
checked without a query. If the server closes one in the moment between this check and the first
statement, the statement is executed again on a new connection, provided that it only reads and is
not part of a transaction.
"""

from __future__ import annotations

import select
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from django.db import connections

from .project_code import DATABASE_UNAVAILABLE

# seconds without a call after which a thread closes the connections that it keeps
IDLE_SECONDS = 10.0
# seconds after which a connection is closed that is used all the time
MAX_AGE_SECONDS = 60.0
# vendors of databases whose connections are kept
VENDORS = ("postgresql", "sqlite")

# the objects for which connections are kept: hubs that run
_holders: weakref.WeakSet[Any] = weakref.WeakSet()


class _Kept(threading.local):
    """The connections that a thread keeps."""

    def __init__(self) -> None:
        # the driver's connections by alias
        self.raw: dict[str, Any] = {}
        # aliases of those that were open before the call that runs, and have executed nothing yet
        self.unused: set[str] = set()


_kept = _Kept()


def hold(holder: object) -> None:
    """Keep connections open until the holder releases them or does not exist any more."""
    _holders.add(holder)


def release(holder: object) -> bool:
    """Stop keeping connections for a holder; return whether there is no other one."""
    _holders.discard(holder)
    return not _holders


def before_call() -> None:
    """Close the connections of this thread that are too old, or that the server has closed."""
    _kept.unused.clear()
    for connection in connections.all(initialized_only=True):
        is_kept = _is_kept(connection)
        if is_kept and _is_lost(connection):
            connection.close()
        connection.close_if_unusable_or_obsolete()
        if is_kept and connection.connection is not None:
            _kept.unused.add(connection.alias)


def after_call() -> None:
    """Close the connections of this thread that are broken, too old, or not to be kept."""
    for connection in connections.all(initialized_only=True):
        if connection.connection is None:
            continue
        if not _holders and _is_kept(connection):
            connection.close_at = 0.0
        elif _holders and not _is_kept(connection) and _may_be_kept(connection):
            _keep(connection)
        connection.close_if_unusable_or_obsolete()


def close_kept() -> None:
    """Close the connections that this thread keeps."""
    for connection in connections.all(initialized_only=True):
        if _is_kept(connection):
            connection.close()
    _kept.raw.clear()


def _is_kept(connection: Any) -> bool:
    return (
        connection.connection is not None
        and _kept.raw.get(connection.alias) is connection.connection
    )


def _may_be_kept(connection: Any) -> bool:
    settings = connection.settings_dict
    return (
        connection.vendor in VENDORS
        and settings["CONN_MAX_AGE"] == 0
        and not settings.get("OPTIONS", {}).get("pool")
    )


def _keep(connection: Any) -> None:
    _kept.raw[connection.alias] = connection.connection
    connection.close_at = time.monotonic() + MAX_AGE_SECONDS
    if _execute_again_if_lost not in connection.execute_wrappers:
        connection.execute_wrappers.insert(0, _execute_again_if_lost)


def _is_lost(connection: Any) -> bool:
    """Return whether the server has closed a connection, or has sent what was not asked for.

    An idle connection has nothing to read, except for the end.
    """
    if connection.vendor != "postgresql":
        return False
    if not hasattr(select, "poll"):  # Windows
        return not connection.is_usable()
    try:
        poll = select.poll()
        poll.register(connection.connection.fileno(), select.POLLIN)
        return bool(poll.poll(0))
    except Exception:  # the driver has closed it
        return True


def _execute_again_if_lost(
    execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    """Execute a statement; open a new connection first if that of the last call was lost."""
    connection = context["connection"]
    if connection.alias not in _kept.unused:
        return execute(sql, params, many, context)
    _kept.unused.discard(connection.alias)
    try:
        return execute(sql, params, many, context)
    except DATABASE_UNAVAILABLE:
        if not _may_execute_again(connection, sql, context) or connection.is_usable():
            raise
    connection.close()
    # the wrapper that the caller has, with a cursor of the new connection
    context["cursor"].cursor = connection.cursor().cursor
    return execute(sql, params, many, context)


def _may_execute_again(connection: Any, sql: Any, context: dict[str, Any]) -> bool:
    """Return whether a statement only reads, outside of transactions and without a server cursor.

    Others may have been executed, although the server did not answer.
    """
    return (
        not connection.in_atomic_block
        and isinstance(sql, str)
        and sql.lstrip()[:6].upper() == "SELECT"
        and not getattr(context["cursor"].cursor, "name", None)
    )

"""From rows before and after a write to changes: into the log, or to the broker on commit.

A collection's log is in its own database. Rows that are written to another database, and
collections with ``durable`` False, are published on commit, at most once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any, Literal

from django.db import connections
from msgspec.structs import replace

from ..declarations.collection import Collection
from ..declarations.related_values import with_related
from ..declarations.row_documents import make_documents
from ..declarations.row_reader import Row
from ..declarations.serialization import changed_fields
from ..events import Change, now
from ..log.append import Transaction, append
from ..metrics import metrics
from ..models import LogEvent
from ..pubsub.broker import broker
from ..utils.transactions import call_on_commit, own_statements
from .tables import WatchedTable

Op = Literal["created", "updated", "deleted"]

MAX_CHANGES = 1000
"""Changes that are made and logged at a time, to bound the memory of a large statement."""

observers: list[Callable[[Change], object]] = []
"""Called with each logged change once it is committed; for `testing.capture_events`."""
uncommitted_observers: list[Callable[[Change], object]] = []
"""Called with each change when it is recorded; likewise."""
statement_observers: list[Callable[[str], object]] = []
"""Called with the database after a statement whose changes triggers log; likewise."""

_disabled: ContextVar[bool] = ContextVar("realtime_capture_disabled", default=False)
# (alias, database name) -> whether the log's table exists
_log_exists: dict[tuple[str, str], bool] = {}


@contextmanager
def capture_disabled() -> Iterator[None]:
    """Do not capture what this thread or task writes within the block; for imports.

    Subscribers get no events for these writes. Triggers in the database still log them.
    """
    token = _disabled.set(True)
    try:
        yield
    finally:
        _disabled.reset(token)


def is_capture_disabled() -> bool:
    """Return whether this thread or task writes without being captured."""
    return _disabled.get()


def forget_log_tables(**kwargs: Any) -> None:
    """Look up again whether the log's tables exist; receiver of ``pre_migrate``."""
    _log_exists.clear()


def log_exists(using: str) -> bool:
    """Return whether the log's table exists. Before it does, there is nothing to log for.

    An insert into a table that does not exist would break a transaction on PostgreSQL.
    """
    connection = connections[using]
    key = using, str(connection.settings_dict["NAME"])
    known = _log_exists.get(key)
    if known is None:
        with own_statements(using), connection.cursor() as cursor:
            known = LogEvent._meta.db_table in connection.introspection.table_names(cursor)
        if known or not connection.in_atomic_block:
            _log_exists[key] = known
    return known


def record(
    table: WatchedTable,
    using: str,
    rows: Iterable[tuple[Row | None, Row | None, Op]],
    changed: tuple[str, ...] | None = None,
) -> None:
    """Record written rows: each as it was, as it is, and what happened to it.

    The row before an update may be unknown (None). ``changed`` replaces the names of the fields
    that differ.
    """
    current, at = Transaction.current(using), now()
    logged: list[Change] = []
    is_locked_in_part = table.is_joined and current.connection.features.has_select_for_update
    for before, after, op in rows:
        if len(logged) >= MAX_CHANGES:
            _log(using, current, logged)
            logged = []
        row = after if after is not None else before
        if row is None:
            continue
        key = table.key_of(row)
        if is_locked_in_part:  # see `concurrency`
            current.last_rows[table, table.identity_of(row)] = after
        for codec, collections in table.codecs:
            old = None if before is None else codec.image(before)
            new = None if after is None else codec.image(after)
            document_id = codec.document_id(key)
            differing = changed
            if changed is None and op == "updated" and old is not None and new is not None:
                differing = changed_fields(old, new)
            for collection in collections:
                current.count += 1
                metrics.captured += 1
                keeps_old = collection.track or op == "deleted"
                change = Change(
                    id=f"{current.id}-{current.count}",
                    collection=collection.stream,
                    op=op,
                    document_id=document_id,
                    transaction=current.id,
                    at=at,
                    before=old if keeps_old else None,
                    after=new,
                    changed=differing if keeps_old else None,
                )
                for observe in uncommitted_observers:
                    observe(change)
                if collection.durable and collection.database == using:
                    logged.append(change)
                elif isinstance(collection, Collection):
                    call_on_commit(using, _publication(collection, change, using))
    if logged:
        _log(using, current, logged)


def _log(using: str, current: Transaction, changes: Sequence[Change]) -> None:
    if not log_exists(using):
        return
    with own_statements(using):
        append(current.connection, changes)
    for observe in observers:
        for change in changes:
            call_on_commit(using, _observation(observe, change))
    _push(current, dict.fromkeys(change.collection for change in changes))


def push(using: str, collections: Iterable[str]) -> None:
    """Announce on commit, once per transaction, that these collections have new events."""
    connection = connections[using]
    if not connection.in_atomic_block and connection.get_autocommit():
        broker.notify(collections, using)
        return
    _push(Transaction.current(using), collections)


def _push(current: Transaction, collections: Iterable[str]) -> None:
    current.streams.update(dict.fromkeys(collections))
    current.once_on_commit("announcement", partial(_announce, current))


def _announce(current: Transaction) -> None:
    broker.notify(current.streams, current.connection.alias)


def _publication(collection: Collection, change: Change, using: str) -> Callable[[], None]:
    def publish() -> None:
        (document,) = make_documents(collection, [change], using)
        (published,) = with_related(collection, [change], using)
        broker.publish(published if document is None else replace(change, document=document))

    return publish


def _observation(observe: Callable[[Change], object], change: Change) -> Callable[[], None]:
    def notify_observer() -> None:
        observe(change)

    return notify_observer

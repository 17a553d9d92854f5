"""Helpers for database transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, models, router, transaction


def database_for(model: type[models.Model], instance: models.Model | None = None) -> str:
    """Return the alias of the database that a model is written to, as the routers decide."""
    return router.db_for_write(model, instance=instance) if instance else router.db_for_write(model)


@contextmanager
def write_transaction(using: str, model: type[models.Model] | None = None) -> Iterator[None]:
    """Open an atomic block that, on SQLite, takes the write lock first.

    On SQLite a transaction that reads first and writes later fails at once with "database is
    locked" if another one has written in between, whatever the busy timeout is. Inside a
    transaction of the project, the lock is taken through the table of ``model``, if given.
    """
    connection: Any = connections[using]
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        with transaction.atomic(using=using, savepoint=False):
            if model is not None:
                acquire_write_lock(using, model)
            yield
        return
    connection.ensure_connection()
    mode = connection.transaction_mode
    connection.transaction_mode = "IMMEDIATE"
    atomic = transaction.atomic(using=using, savepoint=False)
    try:
        atomic.__enter__()
    finally:
        connection.transaction_mode = mode
    with _exiting(atomic):
        yield


@contextmanager
def _exiting(atomic: Any) -> Iterator[None]:
    """Exit an atomic block that was entered already."""
    try:
        yield
    except BaseException as error:
        atomic.__exit__(type(error), error, error.__traceback__)
        raise
    atomic.__exit__(None, None, None)


def acquire_write_lock(using: str, model: type[models.Model]) -> None:
    """On SQLite, take the write lock inside an open transaction, by an update of no rows.

    Done once per transaction, since the lock is held until its end.
    """
    connection: Any = connections[using]
    if connection.vendor == "sqlite" and connection.in_atomic_block:
        lock_hook: CommitHook | None = getattr(connection, "_realtime_lock", None)
        if lock_hook is not None and lock_hook.is_pending(connection):
            return
        names = (model._meta.db_table, str(model._meta.pk.column))
        table, column = (connection.ops.quote_name(name) for name in names)
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET {column} = {column} WHERE 0")  # noqa: S608
        connection._realtime_lock = CommitHook()
        connection._realtime_lock.register(connection)


class CommitHook:
    """A commit hook that knows whether it is still registered.

    Django drops the hooks that were registered in a savepoint when the savepoint is rolled back.
    Something that must happen once per transaction is registered again in that case.
    """

    __slots__ = ("_call", "_index")

    def __init__(self, call: Callable[[], object] | None = None) -> None:
        self._call = call
        # place in the connection's list of hooks when it was registered
        self._index = -1

    def __call__(self) -> None:
        """Run the hook; called by Django on commit."""
        if self._call is not None:
            self._call()

    def register(self, connection: Any) -> None:
        """Have Django run the hook on commit, or at once in autocommit."""
        self._index = len(connection.run_on_commit)
        connection.on_commit(self, robust=True)

    def is_pending(self, connection: Any) -> bool:
        """Return whether the hook will run at the connection's next commit."""
        hooks = connection.run_on_commit
        index = self._index
        if 0 <= index < len(hooks) and hooks[index][1] is self:
            return True
        return any(hook is self for _, hook, _ in hooks)

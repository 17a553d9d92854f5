"""Helpers for database transactions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, models, router, transaction


def database_for(model: type[models.Model], instance: models.Model | None = None) -> str:
    """Return the alias of the database to which the routers send writes of a model."""
    return router.db_for_write(model, instance=instance) if instance else router.db_for_write(model)


@contextmanager
def write_transaction(using: str, model: type[models.Model] | None = None) -> Iterator[None]:
    """Open an atomic block that takes the write lock at its beginning on SQLite.

    A transaction on SQLite that reads before it writes fails with "database is locked" if another
    one has written in between, and the busy timeout does not apply. If the project has already
    opened a transaction, the lock is taken by a statement on the table of ``model``, if given.
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
    """Exit an ``atomic()`` that was entered earlier, when the ``with`` body ends."""
    try:
        yield
    except BaseException as error:
        atomic.__exit__(type(error), error, error.__traceback__)
        raise
    atomic.__exit__(None, None, None)


def acquire_write_lock(using: str, model: type[models.Model]) -> None:
    """Take SQLite's write lock inside an open transaction; do nothing on other databases.

    An UPDATE that matches no row takes the lock. It is executed once per transaction, since the
    lock is held until the end.
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
    """A function that is called on commit, and that knows whether it is still registered.

    When a savepoint is rolled back, Django drops the hooks that were registered since it was
    created. A hook that must run once per transaction must then be registered again.
    """

    __slots__ = ("_call", "_index")

    def __init__(self, call: Callable[[], object] | None = None) -> None:
        # None for a hook that only marks that something was done in the transaction
        self._call = call
        # index in the connection's list of hooks when it was registered
        self._index = -1

    def __call__(self) -> None:
        """Call the function. Django does this after the commit."""
        if self._call is not None:
            self._call()

    def register(self, connection: Any) -> None:
        """Register the hook for the next commit; outside a transaction it runs immediately."""
        self._index = len(connection.run_on_commit)
        connection.on_commit(self, robust=True)

    def is_pending(self, connection: Any) -> bool:
        """Return whether the hook will run at the connection's next commit."""
        hooks = connection.run_on_commit
        index = self._index
        if 0 <= index < len(hooks) and hooks[index][1] is self:
            return True
        return any(hook is self for _, hook, _ in hooks)

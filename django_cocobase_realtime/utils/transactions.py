"""Transactions as this app needs them, on each database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, models, router, transaction


def database_for(model: type[models.Model], instance: models.Model | None = None) -> str:
    """The alias that rows of a model are written to, as the project's routers decide."""
    return router.db_for_write(model, instance=instance) if instance else router.db_for_write(model)


@contextmanager
def write_transaction(using: str, model: type[models.Model] | None = None) -> Iterator[None]:
    """An atomic block that, on SQLite, takes the write lock first.

    Reading first and writing then makes concurrent writers fail at once with "database is
    locked", whatever the busy timeout. Inside a project's own transaction the lock is taken by
    way of ``model``'s table, if one is given.
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
    with _entered(atomic):
        yield


@contextmanager
def _entered(atomic: Any) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        atomic.__exit__(type(error), error, error.__traceback__)
        raise
    atomic.__exit__(None, None, None)


def acquire_write_lock(using: str, model: type[models.Model]) -> None:
    """On SQLite, make a transaction that was begun for reading a writing one, by a no-op write.

    Once a transaction: the lock is held to its end.
    """
    connection: Any = connections[using]
    if connection.vendor == "sqlite" and connection.in_atomic_block:
        taken: CommitHook | None = getattr(connection, "_realtime_lock", None)
        if taken is not None and taken.is_pending(connection):
            return
        names = (model._meta.db_table, str(model._meta.pk.column))
        table, column = (connection.ops.quote_name(name) for name in names)
        with connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET {column} = {column} WHERE 0")  # noqa: S608
        connection._realtime_lock = CommitHook()
        connection._realtime_lock.register(connection)


class CommitHook:
    """A hook of one transaction that can be found again, or found gone with its savepoint.

    Django drops a hook with the savepoint in which it was registered; what must happen once a
    transaction is registered again when a later change finds its hook gone.
    """

    __slots__ = ("_call", "_place")

    def __init__(self, call: Callable[[], object] | None = None) -> None:
        self._call = call
        self._place = -1

    def __call__(self) -> None:
        """What Django calls on commit."""
        if self._call is not None:
            self._call()

    def register(self, connection: Any) -> None:
        """Run on commit; at once in autocommit."""
        self._place = len(connection.run_on_commit)
        connection.on_commit(self, robust=True)

    def is_pending(self, connection: Any) -> bool:
        """Whether it will still run at this connection's next commit."""
        hooks = connection.run_on_commit
        place = self._place
        if 0 <= place < len(hooks) and hooks[place][1] is self:
            return True
        return any(hook is self for _, hook, _ in hooks)

"""Helpers for database transactions."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from django.db import connections, models, router, transaction

_IDLE = 0  # libpq's transaction status of a connection without a transaction


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
    with _new_transaction(using, nullcontext, mode="IMMEDIATE"):
        yield


@contextmanager
def _new_transaction(
    using: str, around: Callable[[], AbstractContextManager[None]], *, mode: str | None
) -> Iterator[None]:
    """Open a transaction in autocommit; begin and end it within the contexts of ``around``.

    ``mode`` is that of SQLite, None for the one that the project has set. With ``IMMEDIATE`` it
    takes the write lock at the beginning, and with ``DEFERRED`` none before something is written.
    """
    atomic = transaction.atomic(using=using, savepoint=False)
    with nullcontext() if mode is None else _sqlite_mode(using, mode), around():
        atomic.__enter__()
    try:
        yield
    except BaseException as error:
        with around():
            atomic.__exit__(type(error), error, error.__traceback__)
        raise
    with around():
        atomic.__exit__(None, None, None)


@contextmanager
def _sqlite_mode(using: str, new: str) -> Iterator[None]:
    """Set the mode of transactions in SQLite that begin within the block."""
    connection: Any = connections[using]
    if connection.vendor != "sqlite":
        yield
        return
    connection.ensure_connection()
    mode, connection.transaction_mode = connection.transaction_mode, new
    try:
        yield
    finally:
        connection.transaction_mode = mode


@contextmanager
def read_snapshot(using: str) -> Iterator[bool]:
    """Open a transaction all of whose queries read one state; yield whether they do.

    They do on SQLite and PostgreSQL, unless there is a transaction already. Only for reading.
    """
    connection: Any = connections[using]
    if connection.vendor not in ("sqlite", "postgresql") or not is_autocommit(using):
        yield False
        return
    with _new_transaction(using, nullcontext, mode="DEFERRED"):
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        yield True


@contextmanager
def savepoint_at_first_query(using: str) -> Iterator[None]:
    """Undo the queries of the block if it raises, so that the transaction around it goes on.

    The savepoint, which costs two statements, is created only if the block executes a query.
    Without a transaction this does nothing.
    """
    connection: Any = connections[using]
    if not connection.in_atomic_block:
        yield
        return
    savepoint: str | None = None
    is_creating = False

    def create_savepoint(execute: Any, *args: Any) -> Any:
        nonlocal savepoint, is_creating
        if savepoint is None and not is_creating:
            is_creating = True  # the savepoint is a query as well
            savepoint = connection.savepoint()
        return execute(*args)

    try:
        with connection.execute_wrapper(create_savepoint):
            yield
        if savepoint is not None:
            connection.savepoint_commit(savepoint)
    except Exception:
        if savepoint is not None:
            connection.needs_rollback = False  # set if the block has caught an error of its own
            connection.savepoint_rollback(savepoint)
        raise


def is_autocommit(using: str) -> bool:
    """Return whether each statement is a transaction of its own."""
    connection = connections[using]
    return (
        not connection.in_atomic_block
        and connection.get_autocommit()
        # the project may have executed BEGIN itself
        and not is_transaction_open(connection)
    )


def is_transaction_open(connection: Any) -> bool:
    """Return whether the driver has an open transaction, on SQLite and PostgreSQL."""
    driver = connection.connection
    if driver is None:
        return False
    if connection.vendor == "sqlite":
        return bool(driver.in_transaction)
    if connection.vendor == "postgresql":
        return bool(driver.info.transaction_status != _IDLE)
    return False


def call_on_commit(using: str, call: Callable[[], object]) -> None:
    """Call a function after the commit, or at once in autocommit. An exception is logged.

    ``on_commit`` raises if the project manages transactions by hand. There, the function is called
    when autocommit is switched on again after the commit.
    """
    connection: Any = connections[using]
    if connection.in_atomic_block or connection.get_autocommit():
        connection.on_commit(call, robust=True)
    else:
        connection.run_on_commit.append((set(connection.savepoint_ids), call, True))


class own_statements:  # noqa: N801 - used as a function; a generator would take twice the time
    """Keep statements of this app out of what the project sees of its own.

    They do not appear in ``connection.queries``, and wrappers that the project installed with
    ``connection.execute_wrapper`` are not called.
    """

    __slots__ = ("_connection", "_saved")

    def __init__(self, using: str) -> None:
        self._connection: Any = connections[using]

    def __enter__(self) -> None:
        connection = self._connection
        make_debug_cursor = connection.__dict__.get("make_debug_cursor")
        self._saved = connection.execute_wrappers, connection.queries_log, make_debug_cursor
        connection.execute_wrappers = []
        connection.queries_log = deque(maxlen=0)
        connection.make_debug_cursor = connection.make_cursor

    def __exit__(self, *exc_info: object) -> None:
        connection = self._connection
        connection.execute_wrappers, connection.queries_log, make_debug_cursor = self._saved
        if make_debug_cursor is None:
            del connection.__dict__["make_debug_cursor"]
        else:
            connection.make_debug_cursor = make_debug_cursor


@contextmanager
def statement_transaction(using: str, *, write_lock: bool) -> Iterator[None]:
    """Open a transaction around one statement and what belongs to it, in autocommit only.

    The project's own transaction is used if there is one. ``write_lock``: on SQLite, take the
    write lock before anything is read.
    """
    if not is_autocommit(using):
        yield
        return
    mode = "IMMEDIATE" if write_lock else None
    with _new_transaction(using, partial(own_statements, using), mode=mode):
        yield


def acquire_write_lock(using: str, model: type[models.Model]) -> None:
    """Take SQLite's write lock inside an open transaction; do nothing on other databases.

    An UPDATE that matches no row takes the lock. It is executed once per transaction, since the
    lock is held until the end.
    """
    connection: Any = connections[using]
    if connection.vendor == "sqlite" and not is_autocommit(using):
        block = connection.atomic_blocks[0] if connection.atomic_blocks else None
        if block is not None and getattr(connection, "_realtime_lock", None) is block:
            return
        names = (model._meta.db_table, str(model._meta.pk_fields[0].column))
        table, column = (connection.ops.quote_name(name) for name in names)
        with own_statements(using), connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET {column} = {column} WHERE 0")  # noqa: S608
        connection._realtime_lock = block


class CommitHook:
    """A function that is called on commit, and that knows whether it is still registered.

    When a savepoint is rolled back, Django drops the hooks that were registered since it was
    created. A hook that must run once per transaction must then be registered again.
    """

    __slots__ = ("__qualname__", "_call", "_index")

    def __init__(self, call: Callable[[], object] | None = None) -> None:
        # Django logs the name of a hook that raised
        self.__qualname__ = getattr(call, "__qualname__", type(self).__name__)
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
        call_on_commit(connection.alias, self)

    def is_pending(self, connection: Any) -> bool:
        """Return whether the hook will run at the connection's next commit."""
        hooks = connection.run_on_commit
        index = self._index
        if 0 <= index < len(hooks) and hooks[index][1] is self:
            return True
        return any(hook is self for _, hook, _ in hooks)

"""A connection to PostgreSQL on an event loop, without a thread.

It has the parameters of Django's connections. Each statement is a transaction of its own, with the
isolation level READ COMMITTED, and is prepared.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import psycopg
from django.db import connections
from psycopg.adapt import Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from ..utils.concurrency import connection_pool_size

# seconds after which an attempt to connect fails
CONNECT_TIMEOUT = 10.0
# seconds after which a statement fails, for example if the server hangs
STATEMENT_TIMEOUT = 30.0
# milliseconds after which a server counts as lost that confirms nothing, unless the project has
# set the option; without it, a half-open connection is noticed after `STATEMENT_TIMEOUT` only
TCP_USER_TIMEOUT = 10_000
# backends of Django; those of other packages may connect in their own way
BACKENDS = (
    "django.db.backends.postgresql.base",
    "django.contrib.gis.db.backends.postgis.base",
)
# Tables that were almost empty when a statement was planned must not be scanned later. The server
# must notice after half a minute that this host is gone, because the session holds locks
_CONFIGURE = (
    "SELECT set_config('default_transaction_isolation', 'read committed', false), "
    "set_config('enable_seqscan', 'off', false), set_config('tcp_keepalives_idle', '15', false), "
    "set_config('tcp_keepalives_interval', '5', false), "
    "set_config('tcp_keepalives_count', '3', false)"
)


class ConnectionPooled(Exception):
    """There is a pooler such as PgBouncer, so statements may be executed in different sessions."""


def is_supported(using: str) -> bool:
    """Return whether the event loop can use a database: Django's PostgreSQL without a pool."""
    connection: Any = connections[using]
    return (
        type(connection).__module__ in BACKENDS
        and connection.Database is psycopg
        and connection_pool_size(using) is None
        and sys.platform != "win32"  # its default event loop has no `add_reader`
    )


class PostgresConnection:
    """A connection of one event loop to a database. Executes one statement after the other."""

    def __init__(self, using: str) -> None:
        # alias of the database
        self._using = using
        self._connection: psycopg.AsyncConnection[Any] | None = None
        # held while a statement is executed
        self._executing = asyncio.Lock()
        # names of the statements that are prepared on this connection
        self._prepared: dict[str, bytes] = {}
        # the result of the statement that is executed, and the number of the socket
        self._received: asyncio.Future[PGresult] | None = None
        self._socket = -1
        self._is_open = False
        # whether `close` was called
        self._is_closed = False

    @property
    def is_open(self) -> bool:
        """Whether `open` has finished, and no statement has failed since."""
        return self._is_open

    async def open(self) -> None:
        """Connect.

        Raises `ConnectionPooled`, or the exceptions of psycopg.
        """
        wrapper: Any = connections[self._using]
        params = wrapper.get_connection_params()
        for name in ("context", "cursor_factory", "prepare_threshold"):
            params.pop(name, None)  # of connections that are not asynchronous
        params.setdefault("tcp_user_timeout", TCP_USER_TIMEOUT)
        async with asyncio.timeout(CONNECT_TIMEOUT):
            connection = await psycopg.AsyncConnection.connect(
                **params, autocommit=True, prepare_threshold=0
            )
        self._connection = connection
        self._prepared = {}
        try:
            if self._is_closed:
                raise psycopg.OperationalError("The connection was closed while it was opened.")
            await self._configure(connection, wrapper.settings_dict["OPTIONS"].get("assume_role"))
        except BaseException:
            self.drop()
            raise
        self._is_open = True

    async def _configure(self, connection: psycopg.AsyncConnection[Any], role: str | None) -> None:
        # not prepared: a pooler might not keep the statement
        ((pid,),) = await self.fetch("SELECT pg_backend_pid()", prepare=False)
        if pid != connection.info.backend_pid:  # PgBouncer makes up a process id for its clients
            raise ConnectionPooled
        await self.fetch(_CONFIGURE)
        if role:
            await self.fetch("SELECT set_config('role', $1, false)", [role])

    async def fetch(
        self,
        sql: str,
        params: Sequence[str] = (),
        *,
        prepare: bool = True,
        timeout: float | None = None,
    ) -> list[tuple[Any, ...]]:
        """Execute a statement, after those that are being executed, and return its rows.

        After an exception, the connection is closed. Raises the exceptions of psycopg, and
        ``TimeoutError`` if the server does not answer within ``timeout`` seconds, or
        `STATEMENT_TIMEOUT`.
        """
        result = await self._execute(sql, params, prepare, timeout)
        transformer = Transformer(self._connection)
        transformer.set_pgresult(result)
        return transformer.load_rows(0, result.ntuples, tuple)

    async def call(self, sql: str, params: Sequence[str] = ()) -> bytes | None:
        """Do the same as `fetch`, and return the first value of the first row as text."""
        return (await self._execute(sql, params, True, None)).get_value(0, 0)

    async def _execute(
        self, sql: str, params: Sequence[str], prepare: bool, timeout: float | None
    ) -> PGresult:
        """Execute a statement by libpq, which needs half the time of psycopg's cursors."""
        connection = self._connection
        async with self._executing:
            # another statement may have failed while this one was waiting
            if connection is None or self._connection is not connection:
                raise psycopg.OperationalError("The connection is closed.")
            is_late = False

            def give_up() -> None:
                nonlocal is_late
                is_late = True
                self.drop()

            seconds = STATEMENT_TIMEOUT if timeout is None else timeout
            timer = asyncio.get_running_loop().call_later(seconds, give_up)
            try:
                return await self._send(connection.pgconn, sql, params, prepare)
            except BaseException as error:
                if self._connection is connection:
                    self.drop()
                if is_late and isinstance(error, psycopg.Error):
                    raise TimeoutError("PostgreSQL did not answer.") from error
                raise
            finally:
                timer.cancel()

    async def _send(
        self, pgconn: PGconn, sql: str, params: Sequence[str], prepare: bool
    ) -> PGresult:
        values = [text.encode() for text in params]
        if not prepare:
            pgconn.send_query_params(sql.encode(), values)
            return await self._receive(pgconn)
        prepared = self._prepared
        name = prepared.get(sql)
        if name is None:
            name = f"cocobase_realtime_{len(prepared)}".encode()
            pgconn.send_prepare(name, sql.encode())
            await self._receive(pgconn)
            prepared[sql] = name
        pgconn.send_query_prepared(name, values)
        return await self._receive(pgconn)

    async def _receive(self, pgconn: PGconn) -> PGresult:
        """Send what libpq has buffered, and return the last result of the statement."""
        loop, number = asyncio.get_running_loop(), pgconn.socket
        received: asyncio.Future[PGresult] = loop.create_future()
        results: list[PGresult] = []

        def write() -> None:
            try:
                if pgconn.flush() == 0:
                    loop.remove_writer(number)
            except psycopg.Error as error:
                loop.remove_writer(number)
                fail(error)

        def read() -> None:
            try:
                pgconn.consume_input()
                while not received.done() and not pgconn.is_busy():
                    result = pgconn.get_result()
                    if result is None:
                        received.set_result(results[-1])
                    else:
                        results.append(result)
            except psycopg.Error as error:
                fail(error)

        def fail(error: Exception) -> None:
            if not received.done():
                received.set_exception(error)

        self._received, self._socket = received, number
        loop.add_reader(number, read)
        try:
            if pgconn.flush() != 0:
                loop.add_writer(number, write)
            result = await received
        finally:
            if self._received is received:  # otherwise another socket may have the number
                self._stop_waiting()
        if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            raise psycopg.errors.error_from_result(result)
        return result

    def _stop_waiting(self) -> None:
        received, self._received = self._received, None
        if received is not None:
            received.get_loop().remove_reader(self._socket)
            received.get_loop().remove_writer(self._socket)
            if not received.done():
                received.set_exception(psycopg.OperationalError("The connection was closed."))

    def close(self) -> None:
        """Close the connection for good, without waiting. A statement that is executed fails."""
        self._is_closed = True
        self.drop()

    def drop(self) -> None:
        """Close the connection, without waiting. A statement that is executed fails."""
        connection, self._connection = self._connection, None
        self._is_open = False
        if connection is not None:
            self._stop_waiting()
            connection.pgconn.finish()

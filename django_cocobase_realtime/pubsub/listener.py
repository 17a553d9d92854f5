"""Receives announcements of new events within one PostgreSQL database, by ``LISTEN``.

Each event loop that numbers events has one connection per database. It is opened again after it was
lost. Then, and when a stream is added, ``on_gap`` is called, because announcements may have been
missed.

``LISTEN`` has no effect behind a pooler that gives each transaction another connection, such as
PgBouncer in transaction mode. Each new connection is therefore tested with a notification of its
own. If that does not arrive, or without psycopg 3, announcements come through the channel layer.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from django.db import connections

from ..utils.concurrency import spawn_task
from .broker import broker
from .notifications import CHANNEL_PREFIX, LISTENER_LOCK, channel_name

if TYPE_CHECKING:
    from psycopg import AsyncConnection

logger = logging.getLogger(__name__)

# name of the connections in ``pg_stat_activity``, unless the project sets another one
APPLICATION_NAME = "cocobase_realtime"
# seconds in which a connection must be opened
CONNECT_TIMEOUT = 5
# channel of the test of a connection; always the same, because poolers keep it
TEST_CHANNEL = f"{CHANNEL_PREFIX}test"
# seconds in which the notification that tests a connection must arrive
TEST_TIMEOUT = 2.0
# seconds between two queries that notice a lost connection, and in which they must be answered
KEEPALIVE_INTERVAL = 5.0
ANSWER_TIMEOUT = 5.0
# seconds to wait until connections are closed, when the last client has left
CLOSE_TIMEOUT = 1.0
# seconds before the connection is opened again: the first delay, and the longest
RETRY_DELAYS = (0.1, 5.0)
# seconds before it is opened again if notifications do not arrive
RETEST_INTERVAL = 60.0


class NotDelivered(Exception):
    """Notifications do not arrive on this connection; a pooler may be the reason."""


class DatabaseListener:
    """The connection that receives announcements in one database. Belongs to one event loop."""

    def __init__(
        self,
        using: str,
        on_announcement: Callable[[str], None],
        on_gap: Callable[[str, list[str]], None],
        *,
        is_counted: bool = True,
    ) -> None:
        # alias of the database
        self.using = using
        # whether writers need no channel layer as long as this process listens
        self._is_counted = is_counted
        # whether announcements are received by ``LISTEN``
        self.is_listening = False
        # called with a stream that has new events
        self._on_announcement = on_announcement
        # called with the database, and streams that may have new events
        self._on_gap = on_gap
        # streams to receive announcements of, by channel
        self._streams: dict[str, str] = {}
        # set if there is something to do for the task
        self._wake = asyncio.Event()
        self._is_stopped = False
        # exception with which the connection was lost
        self._failure: Exception | None = None
        self._task = spawn_task(self._run())

    def follow(self, stream: str) -> None:
        """Receive announcements of a stream; calls ``on_gap`` as soon as they are received."""
        if channel_name(stream) not in self._streams:
            self._streams[channel_name(stream)] = stream
            self._wake.set()

    def unfollow(self, stream: str) -> None:
        """Undo `follow`."""
        if self._streams.pop(channel_name(stream), None) is not None:
            self._wake.set()

    def stop(self) -> asyncio.Task[None]:
        """Close the connection; return the task that does this."""
        self._is_stopped = True
        self._wake.set()
        return self._task

    async def _run(self) -> None:
        delay = RETRY_DELAYS[0]
        while not self._is_stopped:
            try:
                async with connect(self.using) as connection:
                    if not await _is_delivered(self.using, connection):
                        raise NotDelivered
                    # receives what arrives while a statement is executed
                    connection.add_notify_handler(
                        lambda notify: self._receive(notify.channel, notify.payload)
                    )
                    delay = RETRY_DELAYS[0]
                    await self._listen(connection)
            except NotDelivered:
                delay = RETEST_INTERVAL
                logger.info(
                    "New events of database %r are announced through the channel layer: LISTEN has "
                    "no effect through its pooler.",
                    self.using,
                )
            except Exception as error:
                logger.warning(
                    "The connection that listens to database %r was lost or cannot be opened; it "
                    "will be tried again: %r",
                    self.using,
                    error,
                )
            self.is_listening = False
            await self._pause(delay)
            delay = min(delay * 2, RETRY_DELAYS[1])

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._is_stopped:
                    self._wake.clear()
                    await self._wake.wait()

    async def _listen(self, connection: AsyncConnection[Any]) -> None:
        """Receive announcements until the connection is lost, or `stop` is called."""
        listening: set[str] = set()
        has_lock = False
        while not self._is_stopped:
            self._wake.clear()
            streams = dict(self._streams)
            added = streams.keys() - listening
            statements = [f'LISTEN "{channel}"' for channel in added]
            statements += [f'UNLISTEN "{channel}"' for channel in listening - streams.keys()]
            listening = set(streams)
            if statements:
                await _execute(connection, ";".join(statements))
            if streams and not has_lock and self._is_counted:
                # one process holds it, by which others recognize that processes listen
                has_lock = await _try_lock(connection)
            elif has_lock and not streams:
                await _execute(connection, f"SELECT pg_catalog.pg_advisory_unlock({LISTENER_LOCK})")
                has_lock = False
            elif not statements:
                await _execute(connection, "SELECT 1")
            if not self.is_listening:
                self.is_listening = True
                logger.info("New events of database %r are announced by NOTIFY.", self.using)
            if added:
                self._on_gap(self.using, [streams[channel] for channel in added])
            with self._reading(connection), suppress(TimeoutError):
                async with asyncio.timeout(KEEPALIVE_INTERVAL):
                    await self._wake.wait()
            if self._failure is not None:
                raise self._failure

    @contextmanager
    def _reading(self, connection: AsyncConnection[Any]) -> Iterator[None]:
        """Receive notifications within the block, in which no statement must be executed."""
        self._failure = None
        loop, number = asyncio.get_running_loop(), connection.fileno()
        loop.add_reader(number, self._read, connection, number)
        try:
            # psycopg may have read bytes after those of the last statement's result
            self._read(connection, number)
            yield
        finally:
            if self._failure is None:
                loop.remove_reader(number)

    def _read(self, connection: AsyncConnection[Any], number: int) -> None:
        """Handle received notifications; notice that the connection is lost."""
        pgconn = connection.pgconn
        try:
            pgconn.consume_input()
            while (notify := pgconn.notifies()) is not None:
                self._receive(notify.relname.decode(), notify.extra.decode())
        except Exception as error:
            # now, because another socket may get the same number
            asyncio.get_running_loop().remove_reader(number)
            self._failure = error
            self._wake.set()

    def _receive(self, channel: str, payload: str) -> None:
        stream = self._streams.get(channel)
        if stream is None or payload == broker.origin:
            return  # this process has called its own hub already
        try:
            self._on_announcement(stream)
        except Exception:
            logger.exception("An announcement of %r could not be handled.", stream)


class DatabaseListeners:
    """The listeners of one event loop, by database."""

    def __init__(
        self,
        on_announcement: Callable[[str], None],
        on_gap: Callable[[str, list[str]], None],
    ) -> None:
        self._on_announcement = on_announcement
        self._on_gap = on_gap
        self._listeners: dict[str, DatabaseListener] = {}
        # tasks that close connections
        self._closing: set[asyncio.Task[None]] = set()

    def follow(self, using: str, stream: str) -> None:
        """Receive announcements of a stream, if its database supports this."""
        listener = self._listeners.get(using)
        if listener is None:
            if not supports_listen(using):
                return
            listener = DatabaseListener(using, self._on_announcement, self._on_gap)
            self._listeners[using] = listener
        listener.follow(stream)

    def unfollow(self, using: str, stream: str) -> None:
        """Undo `follow`."""
        listener = self._listeners.get(using)
        if listener is not None:
            listener.unfollow(stream)

    def stop(self) -> None:
        """Close all connections, without waiting for this."""
        self._closing |= {listener.stop() for listener in self._listeners.values()}
        self._listeners.clear()

    async def wait_stopped(self) -> None:
        """Wait until the connections are closed, for `CLOSE_TIMEOUT` seconds at most."""
        if self._closing:
            await asyncio.wait(self._closing, timeout=CLOSE_TIMEOUT)
            self._closing.clear()


def supports_listen(using: str) -> bool:
    """Return whether a database is PostgreSQL, and used with psycopg 3."""
    return connections[using].vendor == "postgresql" and find_spec("psycopg") is not None


async def receives_notifications(using: str) -> bool:
    """Return whether notifications arrive on a connection to a database.

    Raises the exceptions of the database if no connection can be opened.
    """
    async with connect(using) as connection:
        return await _is_delivered(using, connection)


async def _is_delivered(using: str, connection: AsyncConnection[Any]) -> bool:
    """Return whether a notification arrives on a connection while it is idle."""
    token, is_delivered = secrets.token_hex(8), False
    await _execute(connection, f'LISTEN "{TEST_CHANNEL}"')
    async with connect(using) as other:
        await _execute(other, f"NOTIFY \"{TEST_CHANNEL}\", '{token}'")
    async with aclosing(connection.notifies(timeout=TEST_TIMEOUT)) as notifications:
        # other processes may test their connections at the same time
        async for notify in notifications:
            if notify.payload == token:
                is_delivered = True
                break
    await _execute(connection, f'UNLISTEN "{TEST_CHANNEL}"')
    return is_delivered


@asynccontextmanager
async def connect(using: str) -> AsyncIterator[AsyncConnection[Any]]:
    """Open a connection with Django's parameters, in autocommit, and close it after the block."""
    from psycopg import AsyncConnection

    wrapper: Any = connections[using]
    parameters = wrapper.get_connection_params()
    # those of synchronous connections
    for name in ("context", "cursor_factory", "prepare_threshold"):
        parameters.pop(name, None)
    parameters.setdefault("connect_timeout", CONNECT_TIMEOUT)
    parameters.setdefault("fallback_application_name", APPLICATION_NAME)
    connection = await AsyncConnection.connect(**parameters, autocommit=True)
    try:
        yield connection
    finally:
        await connection.close()


async def _execute(connection: AsyncConnection[Any], statements: str) -> Any:
    """Execute statements within `ANSWER_TIMEOUT`; return the cursor.

    The time limit ends the connection, because psycopg cannot cancel a statement of a server that
    does not answer.
    """
    loop = asyncio.get_running_loop()
    limit = loop.call_later(ANSWER_TIMEOUT, _shut_down, connection)
    try:
        return await connection.execute(statements)
    finally:
        limit.cancel()


async def _try_lock(connection: AsyncConnection[Any]) -> bool:
    cursor = await _execute(connection, f"SELECT pg_catalog.pg_try_advisory_lock({LISTENER_LOCK})")
    (is_locked,) = await cursor.fetchone()
    return bool(is_locked)


def _shut_down(connection: AsyncConnection[Any]) -> None:
    """End a connection below psycopg, which raises its own exception for this."""
    with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)

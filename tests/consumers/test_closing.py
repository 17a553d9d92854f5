"""Sockets of clients that do not read: how long the app waits for them, on real TCP connections."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from django_cocobase_realtime.consumers import closing
from django_cocobase_realtime.consumers.closing import SocketCloser
from django_cocobase_realtime.hub.drain import drain
from django_cocobase_realtime.transport.tcp_connection import count_unsent_bytes, drop, is_open

UNSENT = b"x" * 8_000_000  # more than the operating system keeps


class Server(asyncio.Protocol):
    """The server's side of a connection, whose ``send`` is like that of uvicorn."""

    def __init__(self, accepted):
        self._accepted = accepted
        self.writes = asyncio.Event()

    def connection_made(self, transport):
        self.transport = transport
        self._accepted.set_result(self)

    async def send(self, message):
        await self.writes.wait()


@asynccontextmanager
async def open_connection():
    """Open a connection; return the server's side, and the client's socket."""
    loop = asyncio.get_running_loop()
    accepted = loop.create_future()
    async with await loop.create_server(lambda: Server(accepted), "127.0.0.1") as listener:
        with socket.create_connection(listener.sockets[0].getsockname()) as client:
            client.setblocking(False)
            server = await accepted
            try:
                yield server, client
            finally:
                drop(server.transport)
                await asyncio.sleep(0)


async def read(client):
    """Read until the end, and return the number of bytes."""
    size = 0
    while data := await asyncio.get_running_loop().sock_recv(client, 65536):
        size += len(data)
    return size


async def wait_until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture
def ends():
    return []


def end(server, ends):
    SocketCloser(server.send).end(lambda: ends.append(True))


async def test_closed_socket_ends_at_once(ends):
    async with open_connection() as (server, _):
        server.transport.close()
        end(server, ends)
        SocketCloser(lambda message: None).end(lambda: ends.append(True))  # an unknown server
        assert ends == [True, True]
        assert len(drain) == 0


async def test_socket_counts_until_the_client_has_read(ends):
    async with open_connection() as (server, client):
        server.transport.write(UNSENT)
        server.transport.close()
        end(server, ends)
        await asyncio.sleep(0.1)
        assert ends == []
        assert await read(client) == len(UNSENT)
        await wait_until(lambda: ends)
        assert len(drain) == 0


@pytest.mark.parametrize("unsent", [b"", UNSENT])
async def test_socket_is_dropped_after_timeout(ends, monkeypatch, unsent):
    monkeypatch.setattr(closing, "CLOSE_TIMEOUT", 0.2)
    async with open_connection() as (server, client):
        server.transport.write(unsent)
        end(server, ends)
        await asyncio.sleep(0.1)
        assert ends == []
        await wait_until(lambda: ends)
        assert not is_open(server.transport)
        assert ends == [True]
        assert await read(client) < max(len(unsent), 1)


@pytest.mark.parametrize("unsent", [b"", UNSENT])
async def test_drain_waits_for_unsent_bytes_only(ends, unsent):
    async with open_connection() as (server, _):
        server.transport.write(unsent)
        end(server, ends)
        assert len(drain) == 1
        (close,) = drain._sockets
        close(500)
        assert len(ends) == (not unsent)
        close(None)
        assert ends == [True]
        assert is_open(server.transport) is (not unsent)  # the server closes it properly
        assert len(drain) == 0


@pytest.mark.parametrize("waits", [True, False])
async def test_consumer_ends_if_the_client_does_not_answer(monkeypatch, waits):
    """Whether the server waits in `send`, or for the client's close frame."""
    monkeypatch.setattr(closing, "CLOSE_TIMEOUT", 0.2)
    async with open_connection() as (server, _):
        if not waits:
            server.writes.set()
        started = asyncio.Event()
        closers = []

        async def serve():
            closers.append(SocketCloser(server.send))
            started.set()
            await asyncio.sleep(60)

        task = asyncio.create_task(serve())
        await started.wait()
        closing_task = asyncio.create_task(closers[0].close(lambda: server.send({})))
        await asyncio.wait({task}, timeout=5)
        assert task.cancelled()
        assert closers[0].has_dropped
        assert not is_open(server.transport)
        assert count_unsent_bytes(server.transport) == 0
        await asyncio.wait_for(closing_task, 5)

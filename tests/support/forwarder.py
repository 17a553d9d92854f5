"""A TCP proxy between clients and servers, whose target can be changed."""

from __future__ import annotations

import asyncio
import contextlib


class Forwarder:
    """Forwards each new connection to the port ``target``, as an asynchronous context manager."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._tasks: set[asyncio.Task[None]] = set()
        # the sockets of the clients, and those to the servers
        self._pairs: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []

    async def __aenter__(self) -> Forwarder:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/realtime"

    def cut(self) -> None:
        """Abort all connections, and lose what is on its way."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for writer in pair:
                writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            to_server = await asyncio.open_connection("127.0.0.1", self.target)
            self._pairs.append((writer, to_server[1]))
            for source, target in ((reader, to_server[1]), (to_server[0], writer)):
                task = asyncio.ensure_future(_copy(source, target))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            return
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()

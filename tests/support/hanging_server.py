"""A PostgreSQL server with faults: a proxy that can stop or spoil what the server sends."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any


class HangingServer:
    """Forwards connections to a server's Unix socket, as an asynchronous context manager."""

    def __init__(self, folder: Path, target: str, port: str) -> None:
        self.folder = folder
        # number of connections that were opened
        self.opened = 0
        self._name = f".s.PGSQL.{port or 5432}"
        self._target = str(Path(target) / self._name)
        # sent to clients instead of the next answers
        self._garbage = b""
        self._answers = asyncio.Event()
        self._answers.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> HangingServer:
        path = str(self.folder / self._name)
        self._server = await asyncio.start_unix_server(self._forward, path)
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.disconnect()
        await asyncio.sleep(0.01)

    def hang(self) -> None:
        """Answer nothing more, also to new connections."""
        self._answers.clear()

    def spoil(self) -> None:
        """Answer with bytes that are not PostgreSQL's, as after an error of TLS."""
        self._garbage = b"\x15\x03\x03\x00\x02\x02\x14"  # a fatal alert

    def disconnect(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def recover(self) -> None:
        """Answer again."""
        self._garbage = b""
        self._answers.set()

    async def _forward(self, reader: Any, writer: Any) -> None:
        self.opened += 1
        to_server = await asyncio.open_unix_connection(self._target)
        self._writers += [writer, to_server[1]]
        for source, target, is_answer in (
            (reader, to_server[1], False),
            (to_server[0], writer, True),
        ):
            task = asyncio.ensure_future(self._copy(source, target, is_answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, reader: Any, writer: Any, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if is_answer:
                    await self._answers.wait()
                writer.write(self._garbage if is_answer and self._garbage else data)
                await writer.drain()
        writer.close()

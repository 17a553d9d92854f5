"""A small WebSocket client for asyncio, which notes when data arrives and can stop reading.

Libraries decode, queue and compress; here a frame costs about 10 µs, so that many clients in one
process measure the server and not themselves.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable
from typing import Any

from benchmarks.loader import KEY, frame

TIMEOUT = 10.0
CLOSE = 8
PING = 9
PONG = 10


def masked(payload: bytes, opcode: int = 1) -> bytes:
    """Return a client's frame of any size."""
    if len(payload) < 65_536:
        return frame(payload, opcode)
    return bytes((0x80 | opcode, 0xFF)) + len(payload).to_bytes(8, "big") + b"\0\0\0\0" + payload


class RawSocket(asyncio.Protocol):
    """One WebSocket. ``on_text`` receives each text, and the time in ns at which it arrived."""

    def __init__(self, on_text: Callable[[bytes, int], None] | None = None) -> None:
        self.on_text = on_text
        self.texts = 0
        self.bytes = 0
        # the close code; 1006 if the socket was closed without one
        self.code: int | None = None
        # the status line, if the handshake was refused
        self.refused: str | None = None
        self._buffer = bytearray()
        self._is_open = False
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[int] = loop.create_future()
        self._expected: tuple[bytes, asyncio.Future[bytes]] | None = None
        self._transport: Any = None
        self._can_write = asyncio.Event()
        self._can_write.set()

    @classmethod
    async def open(
        cls,
        url: tuple[str, int, str],
        *,
        source: str = "127.0.0.1",
        on_text: Callable[[bytes, int], None] | None = None,
        receive_buffer: int | None = None,
        deflate: bool = False,
        timeout: float = TIMEOUT,
    ) -> RawSocket:
        """Connect from the address ``source``; raise OSError if the server refuses."""
        host, port, path = url
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        try:
            sock.bind((source, 0))
            async with asyncio.timeout(timeout):
                await loop.sock_connect(sock, (host, port))
                _, self = await loop.create_connection(lambda: cls(on_text), sock=sock)
        except BaseException:
            sock.close()
            raise
        extension = "Sec-WebSocket-Extensions: permessage-deflate\r\n" if deflate else ""
        self._transport.write(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{extension}"
            f"Sec-WebSocket-Key: {KEY}\r\n\r\n".encode()
        )
        try:
            async with asyncio.timeout(timeout):
                await self._opened
        except BaseException:
            self.abort()
            raise
        return self

    async def authenticate(self, token: str, **options: Any) -> bytes:
        """Authenticate and return the reply."""
        auth = {"type": "auth", "token": token, **options}
        return await self.request(auth, '"authenticated"')

    async def request(
        self, message: dict[str, Any], expected: str, timeout: float = TIMEOUT
    ) -> bytes:
        """Send a request and wait for a text that contains ``expected``.

        Raise OSError if the connection closes first, or if an error arrives.
        """
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._expected = (expected.encode(), future)
        self.send(message)
        try:
            async with asyncio.timeout(timeout):
                return await future
        finally:
            self._expected = None

    def send(self, message: dict[str, Any] | str | bytes, opcode: int = 1) -> None:
        """Send a text, without waiting."""
        if isinstance(message, dict):
            message = json.dumps(message)
        payload = message.encode() if isinstance(message, str) else message
        self._transport.write(masked(payload, opcode))

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are, which need not be a frame."""
        self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the client's buffer is not full, or the connection is closed."""
        waiting = asyncio.ensure_future(self._can_write.wait())
        await asyncio.wait({waiting, self._closed}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()

    def stall(self) -> None:
        """Stop reading."""
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        self._transport.resume_reading()

    async def closed(self, timeout: float = TIMEOUT) -> int | None:
        """Wait for the close and return its code, or None if there was none in time."""
        done, _ = await asyncio.wait({self._closed}, timeout=timeout)
        return self._closed.result() if done else None

    def abort(self) -> None:
        """Close the socket without a close frame, as a lost client does."""
        if self._transport is not None:
            self._transport.abort()

    def close(self, code: int = 1000) -> None:
        """Send a close frame, then close the socket."""
        self._transport.write(masked(code.to_bytes(2, "big"), CLOSE))
        self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def connection_lost(self, error: Exception | None) -> None:
        if self.code is None:
            self.code = 1006
        failure = OSError(self.refused or f"closed with {self.code}")
        if not self._opened.done():
            self._opened.set_exception(failure)
            self._opened.exception()  # marks it as retrieved
        if self._expected is not None and not self._expected[1].done():
            self._expected[1].set_exception(failure)
        if not self._closed.done():
            self._closed.set_result(self.code)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        buffer = self._buffer
        buffer += data
        if not self._is_open:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if b" 101 " not in buffer[:end]:
                self.refused = buffer.split(b"\r\n")[0].decode("latin1")
                self._transport.abort()
                return
            del buffer[: end + 4]
            self._is_open = True
            self._opened.set_result(None)
        at, size = 0, len(buffer)
        while size - at >= 2:
            length, head = buffer[at + 1], 2
            if length == 126:
                head = 4
                length = int.from_bytes(buffer[at + 2 : at + 4], "big")
            elif length == 127:
                head = 10
                length = int.from_bytes(buffer[at + 2 : at + 10], "big")
            end = at + head + length
            if size < at + head or end > size:
                break
            self._handle(buffer[at] & 15, bytes(buffer[at + head : end]), now)
            at = end
        del buffer[:at]

    def _handle(self, opcode: int, payload: bytes, now: int) -> None:
        if opcode == PING:
            self._transport.write(masked(payload, PONG))
        elif opcode == CLOSE:
            self.code = int.from_bytes(payload[:2], "big") if payload else 1005
            if not self._closed.done():
                self._closed.set_result(self.code)
            self.close()
        elif opcode == 1:
            self.texts += 1
            self.bytes += len(payload)
            if self._expected is not None and not self._expected[1].done():
                text, future = self._expected
                if text in payload:
                    future.set_result(payload)
                elif b'"type":"error"' in payload or b'"type":"closing"' in payload:
                    future.set_exception(OSError(payload.decode()))
            if self.on_text is not None:
                self.on_text(payload, now)

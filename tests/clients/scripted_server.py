"""A WebSocket server that sends only the frames that a scenario lets it send."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

TIMEOUT = 15.0
ROOT = Path(__file__).parent.parent.parent
STATIC = ROOT / "django_cocobase_realtime" / "static" / "django_cocobase_realtime"
FILES = {
    "/realtime.js": STATIC / "realtime.js",
    "/driver.mjs": Path(__file__).parent / "driver.mjs",
}
# the limits of a server with default settings
LIMITS = {
    "message_bytes": 65536,
    "name_bytes": 128,
    "state_bytes": 1024,
    "subscriptions": 100,
    "rooms": 50,
    "messages_rate": [20, 40],
    "subscribe_rate": [5, 100],
    "broadcast_rate": [10, 20],
}


class Connection:
    """One client's connection. It answers pings unless ``ignores_pings`` is set."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.ignores_pings = False
        self.pings = 0
        self.acks: list[str] = []
        self.code: int | None = None
        self.closed = asyncio.Event()
        self._frames: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def read(self) -> None:
        try:
            async for text in self.socket:
                frame = json.loads(text)
                if frame["type"] == "ping":
                    self.pings += 1
                    if not self.ignores_pings:
                        await self.send({"type": "pong"})
                elif frame["type"] == "ack":
                    self.acks.append(frame["cursor"])
                else:
                    await self._frames.put(frame)
        except ConnectionClosed:
            pass
        finally:
            self.closed.set()

    async def receive(self, type: str) -> dict[str, Any]:
        """Return the next request, which must have this type; pings and acks are left out."""
        frame = await asyncio.wait_for(self._frames.get(), TIMEOUT)
        assert frame["type"] == type, frame
        return frame

    async def receive_any(self) -> dict[str, Any]:
        """Return the next request, of any type."""
        return await asyncio.wait_for(self._frames.get(), TIMEOUT)

    async def receive_within(self, seconds: float) -> dict[str, Any] | None:
        """Return the next request, or None if none arrives in time."""
        try:
            return await asyncio.wait_for(self._frames.get(), seconds)
        except TimeoutError:
            return None

    async def receive_nothing(self, seconds: float = 0.3) -> None:
        frame = await self.receive_within(seconds)
        assert frame is None, frame

    async def send(self, *frames: dict[str, Any]) -> None:
        for frame in frames:
            await self.socket.send(json.dumps(frame))

    async def reply(self, request: dict[str, Any], type: str, **fields: Any) -> None:
        await self.send({"type": type, "id": request["id"], **fields})

    async def reply_error(self, request: dict[str, Any], code: str, **fields: Any) -> None:
        await self.reply(request, "error", code=code, message="No.", **fields)

    async def reply_subscribed(self, request: dict[str, Any], **fields: Any) -> None:
        names = {key: request[key] for key in ("collection", "subscription")}
        await self.reply(request, "subscribed", **names, filters={}, durable=True, **fields)

    async def send_snapshot(self, request: dict[str, Any], *documents: Any, **fields: Any) -> None:
        """Send one page of a snapshot; ``documents`` are (id, data)."""
        page = [{"id": id, "data": data} for id, data in documents]
        fields = {"cursor": None, "more": False, **fields}
        name = request["subscription"]
        await self.send({"type": "snapshot", "subscription": name, "documents": page, **fields})

    async def send_window(
        self,
        request: dict[str, Any],
        *insert: tuple[int, str, Any],
        remove: tuple[str, ...] = (),
        cursor: str | None = None,
        more: bool = False,
        **fields: Any,
    ) -> None:
        """Send a change of a window; ``insert`` are (index, id, data).

        Without a cursor it is a part, which others follow.
        """
        documents = [[index, {"id": id, "data": data}] for index, id, data in insert]
        frame = {"type": "window", "subscription": request["subscription"], "remove": remove}
        last = {"partial": True} if cursor is None else {"more": more, "cursor": cursor}
        await self.send({**frame, "insert": documents, **last, **fields})

    async def send_aggregate(
        self, request: dict[str, Any], *groups: Any, cursor: str | None = None, **fields: Any
    ) -> None:
        """Send groups of an aggregate. Without a cursor they are a part, which others follow."""
        frame = {"type": "aggregate", "subscription": request["subscription"], "groups": groups}
        last = {"partial": True} if cursor is None else {"cursor": cursor}
        await self.send({**frame, **last, **fields})

    async def send_cursor(self, request: dict[str, Any], cursor: str) -> None:
        """Send that a result has not changed up to a cursor."""
        await self.send(
            {"type": "cursor", "subscription": request["subscription"], "cursor": cursor}
        )

    async def send_moved(
        self,
        request: dict[str, Any],
        *entered: Any,
        left: tuple[str, ...] = (),
        cursor: str,
        scope: str | None = None,
    ) -> None:
        """Send a part of a move, the last one if it has a scope; ``entered`` are (id, data)."""
        documents = [{"id": id, "data": data} for id, data in entered]
        frame = {"type": "moved", "subscription": request["subscription"], "cursor": cursor}
        last = {"more": True} if scope is None else {"scope": scope, "more": False}
        await self.send({**frame, "entered": documents, "left": left, **last})

    async def send_resync(self, request: dict[str, Any], **fields: Any) -> None:
        """Send a ``resync`` with the new scope ``t``."""
        frame = {"type": "resync", "subscription": request["subscription"]}
        await self.send({**frame, "reason": "scope_changed", "scope": "t", **fields})

    async def close(
        self, code: int, retry_after_ms: int | None = None, *, send_closing: bool = True
    ):
        if send_closing:
            closing = {"type": "closing", "code": code, "reason": "Because.", "at": "now"}
            await self.send({**closing, "retry_after_ms": retry_after_ms})
        await self.socket.close(code)

    def abort(self) -> None:
        """Close the TCP connection without a close frame."""
        self.socket.transport.abort()


class ScriptedServer:
    """The server. ``accept_authenticated`` waits for a connection and authenticates it."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._connections: asyncio.Queue[Connection] = asyncio.Queue()
        self.count = 0
        # HTTP status with which handshakes are refused; None to accept them
        self.refusal: int | None = None
        # refused handshakes
        self.refused = 0

    async def __aenter__(self) -> ScriptedServer:
        self._server = await serve(
            self._serve,
            "127.0.0.1",
            self.port,
            ping_interval=None,
            process_request=self._serve_file,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/realtime"

    def _serve_file(self, connection: ServerConnection, request: Request) -> Response | None:
        """Serve what a browser needs to run the client: an empty page and two scripts."""
        if request.path == "/realtime":
            if self.refusal is None:
                return None
            self.refused += 1
            return Response(self.refusal, "Refused", Headers({"Content-Length": "0"}), b"")
        body, kind = b"<!doctype html><title>Client</title>", "text/html"
        if request.path in FILES:
            body, kind = FILES[request.path].read_bytes(), "text/javascript"
        headers = Headers({"Content-Type": kind, "Content-Length": str(len(body))})
        return Response(200, "OK", headers, body)

    async def _serve(self, socket: ServerConnection) -> None:
        connection = Connection(socket)
        self.count += 1
        await self._connections.put(connection)
        await connection.read()

    async def accept(self) -> Connection:
        return await asyncio.wait_for(self._connections.get(), TIMEOUT)

    async def accept_authenticated(self, **fields: Any) -> Connection:
        connection = await self.accept()
        connection.auth = await connection.receive("auth")
        await self.authenticate(connection, connection.auth, **fields)
        return connection

    async def authenticate(
        self, connection: Connection, auth: dict[str, Any], **fields: Any
    ) -> None:
        fields = {
            "connection": f"connection-{self.count}",
            "user": {"id": "7", "name": "ada"},
            "project": "default",
            "expires_at": None,
            "heartbeat": 25,
            "protocol": 1,
            "limits": LIMITS,
            "now": datetime.now(UTC).isoformat(),
            **fields,
        }
        if fields["limits"] is None:  # a server of an earlier version
            del fields["limits"], fields["now"]
        await connection.reply(auth, "authenticated", **fields)


def change_event(
    request: dict[str, Any], event: str, id: str, cursor: str | None = None, **data: Any
) -> dict[str, Any]:
    """Return a change event for one subscription."""
    document: dict[str, Any] = {"id": id}
    if event != "left":
        document["data"] = data
    frame = {
        "type": "event",
        "collection": request["collection"],
        "event": event,
        "document": document,
        "subscriptions": [request["subscription"]],
        "at": "2026-01-31T12:00:00+00:00",
    }
    return frame if cursor is None else {**frame, "cursor": cursor}


def broadcast_event(room: str, message: Any, **fields: Any) -> dict[str, Any]:
    """Return the event of a broadcast to a room."""
    sender = {"id": "8", "name": "bob", "verified": True}
    event = {"type": "event", "event": "broadcast", "room": room, "message": message}
    return {**event, "sender": sender, "at": "2026-01-31T12:00:00+00:00", **fields}

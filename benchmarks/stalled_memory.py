"""The memory that one stalled client costs a server, for each kind of request.

The measurement of `benchmarks.stalled`. "Held" is the growth of the server's resident memory some
seconds after the client has stopped reading, when memory that is not used has been returned to the
system; "peak" is the highest growth until then. "Counted" is what the app itself counts. Before, a
client that reads has made one request of the same kind, so that caches are filled.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from benchmarks import targets
from benchmarks.common import print_line
from benchmarks.raw_socket import RawSocket

GOAL_MIB = 2.0
RECEIVE_BUFFER_BYTES = 4096
REQUESTS = 30
WAIT_SECONDS = 3.0
DOCUMENT_BYTES = 16_000
LARGE_BYTES = 200_000
KEPT_MESSAGES = 1000
KEPT_BYTES = 64_000
MEMBERS = 1200
POSTS = {
    "model": "app.Post",
    "fields": ["title", "body", "status", "views", "owner", "project", "created_at"],
    "permission": "benchmarks.site.permissions.OfProject",
}
Send = Callable[[RawSocket, "Server", bool], Coroutine[Any, Any, None]]


@dataclass
class Kind:
    """A kind of requests."""

    # makes the requests of the stalled client, or (third argument) one request of one that reads
    send: Send
    # events that are sent to the client while it does not read
    events: int = 0
    padding: int = DOCUMENT_BYTES
    padding_with: str = "x"
    auth: dict[str, Any] = field(default_factory=dict)
    durable: bool = True


class Server:
    """A measured server, and its control socket."""

    def __init__(self, target: targets.Target) -> None:
        self.target = target
        self.resume: dict[str, Any] = {}
        self._number = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.setblocking(False)

    @property
    def rss_mib(self) -> float:
        return self.target.server.rss / 2**20

    async def _request(self, message: dict[str, Any]) -> int:
        loop = asyncio.get_running_loop()
        address = ("127.0.0.1", self.target.server.control)
        self._socket.sendto(json.dumps(message).encode(), address)
        async with asyncio.timeout(60):
            reply: int = json.loads(await loop.sock_recv(self._socket, 4096))["at"]
        return reply

    async def save(self, events: int) -> None:
        """Save a row so many times, one after the other."""
        for _ in range(events):
            self._number += 1
            command = {"first": self._number, "count": 1, "classes": 1, "save": True}
            await self._request(command)

    async def emit(self, events: int) -> None:
        """Send events of the raw ASGI application."""
        for _ in range(events):
            self._number += 1
            message = {"first": self._number, "count": 1, "classes": 1}
            address = ("127.0.0.1", self.target.server.control)
            self._socket.sendto(json.dumps(message).encode(), address)
            await asyncio.sleep(0.02)

    async def release_memory(self) -> int:
        """Let the server return unused memory; return the bytes that the app counts."""
        return await self._request({"memory": 1})

    async def open(self, number: int, *, stalled: bool, **auth: Any) -> RawSocket:
        buffer = RECEIVE_BUFFER_BYTES if stalled else None
        client = await RawSocket.open(self.target.server.url, receive_buffer=buffer)
        await client.authenticate(targets.token(number), **auth)
        return client

    def close(self) -> None:
        self._socket.close()
        self.target.server.kill()


async def subscribe(client: RawSocket, server: Server, warm: bool) -> None:
    await _subscribe(client, 1)


async def replay(client: RawSocket, server: Server, warm: bool) -> None:
    if warm:
        request = {"type": "subscribe", "collection": "posts"}
        reply = json.loads(await client.request(request, '"subscribed"'))
        server.resume = {"since": reply["cursor"], "scope": reply["scope"]}
        await server.save(500)
    await _subscribe(client, 1 if warm else REQUESTS, **server.resume)


async def snapshot(client: RawSocket, server: Server, warm: bool) -> None:
    await _subscribe(client, 1 if warm else REQUESTS, snapshot=True)


async def room_history(client: RawSocket, server: Server, warm: bool) -> None:
    for _ in range(1 if warm else REQUESTS):
        client.send({"type": "join", "room": "kept-1", "history": 20 if warm else KEPT_MESSAGES})


async def members(client: RawSocket, server: Server, warm: bool) -> None:
    async def become_member(number: int) -> None:
        member = await server.open(10_000 + number, stalled=False)
        request = {"type": "join", "room": "large", "state": {"a": "x" * 900}}
        await member.request(request, '"joined"', 60)
        member.abort()  # remains a member for the time of grace, and receives no more frames

    if warm:
        for first in range(0, MEMBERS, 20):
            await asyncio.gather(*map(become_member, range(first, first + 20)))
    for _ in range(1 if warm else REQUESTS):
        client.send({"type": "join", "room": "large", "presence": False})


async def _subscribe(client: RawSocket, count: int, **options: Any) -> None:
    for number in range(count):
        frame = {"type": "subscribe", "collection": "posts", "subscription": f"s{number}"}
        client.send({**frame, **options})


KINDS = {
    "30 replays": Kind(replay),
    "30 snapshots": Kind(snapshot),
    "snapshot and 300 events of 200 kB, not durable": Kind(
        snapshot, events=300, padding=LARGE_BYTES, durable=False
    ),
    "room history of 1,000 x 64 kB": Kind(room_history),
    "60 events of 200 kB outside of ASCII": Kind(
        subscribe, events=60, padding=LARGE_BYTES // 4, padding_with="\U0001f600"
    ),
    "room of 1,200 members": Kind(members),
    "300 events of 16 kB, in batches": Kind(subscribe, events=300, auth={"batch": True}),
}


def fill_tables() -> None:
    """Create rows for snapshots, and messages of a room."""
    from django_cocobase_realtime import broadcast
    from tests.app.models import Post

    posts = [Post(title=str(n), body="x" * DOCUMENT_BYTES) for n in range(1000)]
    Post.objects.bulk_create(posts)
    for number in range(KEPT_MESSAGES):
        broadcast("kept-1", {"n": number, "text": "x" * KEPT_BYTES})


class Peak:
    """The highest resident memory of a server."""

    def __init__(self, server: Server) -> None:
        self.first = self.highest = server.rss_mib
        self._server = server
        self._task = asyncio.create_task(self._sample())

    async def _sample(self) -> None:
        while True:
            self.highest = max(self.highest, self._server.rss_mib)
            await asyncio.sleep(0.02)

    def stop(self) -> float:
        self._task.cancel()
        return self.highest - self.first


async def measure(server_kind: str, name: str, kind: Kind) -> dict[str, Any]:
    """Measure one kind of requests."""
    settings = {
        "COLLECTIONS": {"posts": {**POSTS, "durable": kind.durable}},
        "ROOMS": {"kept-*": {"history": KEPT_MESSAGES}, "*": {}},
        "PRESENCE": {"GRACE": 600, "LEASE": 900},
    }
    env = {"BENCH_PAD": str(kind.padding), "BENCH_PAD_WITH": kind.padding_with}
    target = targets.realtime(server_kind, name, settings=settings, shared=True, **env)
    await asyncio.to_thread(target.server.start)
    server = Server(target)
    client: RawSocket | None = None
    try:
        reader = await server.open(1, stalled=False, **kind.auth)
        await kind.send(reader, server, True)
        if kind.events:
            await server.save(10)
        await asyncio.sleep(2)
        reader.close()
        await asyncio.sleep(0.5)
        client = await server.open(1, stalled=True, **kind.auth)
        await server.release_memory()
        peak = Peak(server)
        client.stall()
        await kind.send(client, server, False)
        await asyncio.sleep(0.5)
        await server.save(kind.events)
        await asyncio.sleep(WAIT_SECONDS)
        peak_mib = peak.stop()
        counted = await server.release_memory()
        held_mib = server.rss_mib - peak.first
        client.resume()
        await asyncio.sleep(1)
        received, code = client.bytes, client.code
    finally:
        if client is not None:
            client.abort()
        server.close()
    return {
        "server": server_kind,
        "name": name,
        "held_mib": held_mib,
        "peak_mib": peak_mib,
        "counted_mib": counted / 2**20,
        "received_mib": received / 2**20,
        "code": code,
    }


async def measure_bare(server_kind: str) -> dict[str, Any]:
    """Measure a connection of the raw ASGI loop to which 1 MiB is sent."""
    target = targets.raw_asgi(server_kind, "raw ASGI, 1 MiB sent", shared=True, BENCH_PAD="65000")
    await asyncio.to_thread(target.server.start)
    server = Server(target)
    try:
        for _ in range(2):  # the first time warms up
            url = target.server.url
            client = await RawSocket.open(url, receive_buffer=RECEIVE_BUFFER_BYTES)
            await client.request({"class": 0}, "ok")
            await server.release_memory()
            peak = Peak(server)
            client.stall()
            await server.emit(16)
            await asyncio.sleep(1)
            peak_mib = peak.stop()
            with contextlib.suppress(TimeoutError):  # daphne may be busy with its buffer
                await server.release_memory()
            held_mib = server.rss_mib - peak.first
            client.abort()
            await asyncio.sleep(0.5)
    finally:
        server.close()
    return {"server": server_kind, "name": target.name, "held_mib": held_mib, "peak_mib": peak_mib}


def measure_all(servers: list[str], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all kinds with each server; print a table and return its rows."""
    fill_tables()
    rows = []
    for server_kind in servers:
        print_line(f"\n{server_kind}, memory of one stalled client, MiB (goal: {GOAL_MIB} held)")
        bare = asyncio.run(measure_bare(server_kind))
        rows.append(bare)
        print_line(
            f"    {bare['name']:48} held {bare['held_mib']:6.1f}  peak {bare['peak_mib']:6.1f}"
        )
        for name, kind in KINDS.items():
            if arguments.kinds and not any(word in name for word in arguments.kinds):
                continue
            row = asyncio.run(measure(server_kind, name, kind))
            rows.append(row)
            mark = "" if row["held_mib"] <= GOAL_MIB else " !"
            print_line(
                f"    {name:48} held {row['held_mib']:6.1f}  peak {row['peak_mib']:6.1f}  counted "
                f"{row['counted_mib']:5.1f}  closed {row['code'] or 'no'}{mark}"
            )
    return rows

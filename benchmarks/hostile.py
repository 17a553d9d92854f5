"""The hostile clients of `benchmarks.fair`, in a process of their own.

Started with the kind and a JSON object (`Victim`) as arguments. Reads ``start`` and ``stop`` from
stdin, and writes after each ``stop`` what the client did and what the server answered.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from benchmarks.raw_socket import RawSocket

ADDRESS = "127.0.0.2"  # the same for all connections of the hostile client
STALLED_BUFFER_BYTES = 4096
# all multiples of it have the same hash in CPython
HASH_MODULUS = 2**61 - 1
REQUEST_PAUSE = 0.05  # seconds; 20 requests a second are allowed


@dataclass
class Victim:
    """The server, credentials, and the position from which its history is long."""

    url: tuple[str, int, str]
    token: str
    cursor: str
    scope: str
    counts: Counter[str] = field(default_factory=Counter)

    async def connect(self, *, stalled: bool = False) -> RawSocket:
        """Open and authenticate a connection."""
        socket = await RawSocket.open(
            self.url,
            source=ADDRESS,
            on_text=self.count,
            receive_buffer=STALLED_BUFFER_BYTES if stalled else None,
        )
        self.counts["connections"] += 1
        await socket.authenticate(self.token)
        return socket

    def count(self, payload: bytes, _: int) -> None:
        """Count a frame by its type, or by the code of an error or of a close."""
        frame = json.loads(payload)
        self.counts[str(frame.get("code") or frame.get("type"))] += 1


Kind = Callable[[Victim], Coroutine[Any, Any, None]]
KINDS: dict[str, tuple[Kind, str]] = {}


def kind(name: str, about: str, connections: int = 1) -> Callable[[Kind], Kind]:
    """Register a function that is run again and again, in so many tasks at a time."""

    def add(function: Kind) -> Kind:
        async def repeat(victim: Victim) -> None:
            while True:
                try:
                    await function(victim)
                except (OSError, EOFError, TimeoutError) as error:
                    victim.counts[type(error).__name__] += 1
                    await asyncio.sleep(0.1)
                await asyncio.sleep(0)

        async def run(victim: Victim) -> None:
            await asyncio.gather(*(repeat(victim) for _ in range(connections)))

        KINDS[name] = (run, about)
        return function

    return add


async def subscribe_repeatedly(
    victim: Victim, requests: list[dict[str, Any]], *, stalled: bool = False, pause: float = 0.2
) -> None:
    """Send ``subscribe`` requests at once, then again as often as the rate allows."""
    socket = await victim.connect(stalled=stalled)
    try:
        if stalled:
            socket.stall()
        for number, request in enumerate(requests):
            socket.send({"type": "subscribe", "subscription": f"s{number}", **request})
        while socket.code is None:
            for number, request in enumerate(requests):
                await asyncio.sleep(pause)
                if socket.code is None:
                    socket.send({"type": "subscribe", "subscription": f"s{number}", **request})
    finally:
        socket.abort()


@kind("snapshots", "100 snapshots that match nothing in 80,000 rows")
async def snapshots(victim: Victim) -> None:
    filters = [{"body_contains": f"nothing {n}"} for n in range(100)]
    requests = [{"collection": "posts", "filters": f, "snapshot": True} for f in filters]
    await subscribe_repeatedly(victim, requests)


@kind("colliding", "24 subscriptions, each with 1,600 values that have the same hash")
async def colliding(victim: Victim) -> None:
    def values(first: int) -> list[str]:
        return [str(n * HASH_MODULUS) for n in range(first, first + 100)]

    filters = [
        {"$or": [{"views": {"in": values(1 + 100 * (16 * n + k))}} for k in range(16)]}
        for n in range(24)
    ]
    await subscribe_repeatedly(victim, [{"collection": "posts", "filters": f} for f in filters])


@kind("unindexed", "100 subscriptions with 16 conditions each that no index serves")
async def unindexed(victim: Victim) -> None:
    filters = [
        {
            "$and": [
                *({"title": {"ne": f"{number}.{clause}"}} for clause in range(15)),
                {"status": {"notin": ["s0", str(number)]}},
            ]
        }
        for number in range(100)
    ]
    await subscribe_repeatedly(victim, [{"collection": "posts", "filters": f} for f in filters])


@kind("slow permission", "8 connections to a collection whose permission takes 1 s", 8)
async def slow_permission(victim: Victim) -> None:
    await subscribe_repeatedly(victim, [{"collection": "slow"}] * 100)


@kind("replay", "a long history, replayed to 30 subscriptions of a client that does not read")
async def replay(victim: Victim) -> None:
    since = {"since": victim.cursor, "scope": victim.scope, "transitions": True}
    requests = [{"collection": "posts", **since}] * 30
    await subscribe_repeatedly(victim, requests, stalled=True)


@kind("stalled", "30 snapshots of a client that does not read")
async def stalled(victim: Victim) -> None:
    requests = [{"collection": "posts", "snapshot": True}] * 30
    await subscribe_repeatedly(victim, requests, stalled=True)


def bad_tokens() -> list[str]:
    """Return credentials that look right and are not."""

    def encode(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    header, claims = {"alg": "HS256", "kid": os.urandom(4).hex()}, {"sub": "1", "exp": 1}
    late = {"sub": os.urandom(4).hex(), "exp": 4_000_000_000}
    return [
        f"crk_{os.urandom(4).hex()}_{os.urandom(32).hex()[:43]}",
        f"{encode(header)}.{encode(claims)}.{os.urandom(32).hex()[:43]}",
        f"{encode(header)}.{encode(late)}.{os.urandom(32).hex()[:43]}",
        "x" * 4000,
    ]


@kind("bad tokens", "4 connections that fail to authenticate, again and again", 4)
async def failing_auth(victim: Victim) -> None:
    for token in bad_tokens():
        socket = await RawSocket.open(victim.url, source=ADDRESS, on_text=victim.count)
        victim.counts["connections"] += 1
        try:
            socket.send({"type": "auth", "token": token})
            await socket.closed()
        finally:
            socket.abort()


async def flood(victim: Victim, frames: list[str], *, authenticated: bool) -> None:
    """Send frames as fast as possible until the server closes the connection."""
    socket = await RawSocket.open(victim.url, source=ADDRESS, on_text=victim.count)
    victim.counts["connections"] += 1
    try:
        if authenticated:
            await socket.authenticate(victim.token)
        while socket.code is None:
            for frame in frames:
                socket.send(frame)
            await socket.drain()
            await asyncio.sleep(0)
    finally:
        socket.abort()


@kind("pings", "a flood of pings, some before authentication", 2)
async def pings(victim: Victim) -> None:
    await flood(victim, ["ping", '{"type":"ping"}'], authenticated=True)
    await flood(victim, ["ping"], authenticated=False)


@kind("malformed", "a flood of malformed frames", 2)
async def malformed(victim: Victim) -> None:
    frames = ["{", "[" * 5000, '{"a":' * 5000, "9" * 5000, "x" * 60_000, '{"type":"ping","id":[]}']
    await flood(victim, frames, authenticated=True)


@kind("GET rooms", "4 connections that request the list of rooms in a loop", 4)
async def get_rooms(victim: Victim) -> None:
    host, port, _ = victim.url
    reader, writer = await asyncio.open_connection(host, port, local_addr=(ADDRESS, 0))
    head = f"Host: {host}:{port}\r\nAuthorization: Bearer {victim.token}\r\n\r\n"
    with contextlib.closing(writer):
        while True:
            writer.write(f"GET /realtime/rooms HTTP/1.1\r\n{head}".encode())
            answer = await reader.readuntil(b"\r\n\r\n")
            victim.counts[answer.split(b" ", 2)[1].decode()] += 1
            for line in answer.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await reader.readexactly(int(line.split(b":")[1]))
            if b"connection: close" in answer.lower():
                return


@kind("joins", "a client that joins and leaves a room with 1,000 kept messages")
async def joins(victim: Victim) -> None:
    socket = await victim.connect()
    try:
        while socket.code is None:
            socket.send({"type": "join", "room": "kept-1", "history": 1000})
            socket.send({"type": "leave", "room": "kept-1"})
            await asyncio.sleep(2 * REQUEST_PAUSE)
    finally:
        socket.abort()


@kind("reconnects", "4 clients that connect, subscribe and disconnect in a loop", 4)
async def reconnects(victim: Victim) -> None:
    socket = await victim.connect()
    try:
        await socket.request({"type": "subscribe", "collection": "posts"}, '"subscribed"')
    finally:
        socket.abort()


async def main(name: str, victim: Victim) -> None:
    """Run a kind between each ``start`` and ``stop``."""
    run, _ = KINDS[name]
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        assert line.strip() == "start"
        victim.counts.clear()
        task = loop.create_task(run(victim))
        await loop.run_in_executor(None, sys.stdin.readline)
        while not task.done():  # a cancellation can get lost
            task.cancel()
            await asyncio.wait({task}, timeout=0.2)
        print(json.dumps(victim.counts), flush=True)


if __name__ == "__main__":
    os.nice(5)  # on other machines it would not share the processor with the server
    options = json.loads(sys.argv[2])
    asyncio.run(main(sys.argv[1], Victim(**options)))

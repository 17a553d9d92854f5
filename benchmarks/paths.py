"""Measure the way of events from saving processes to subscribers of one or more servers."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import percentile
from benchmarks.loader import MARK
from benchmarks.process import cpu_seconds
from benchmarks.raw_socket import RawSocket
from benchmarks.saver import FIRST_WARM_UP, Saver
from benchmarks.targets import MeasuredServer, token

ARRIVAL_TIMEOUT = 20.0  # seconds after the last commit
PLENTY = {
    "queue_messages": 1_000_000,
    "queue_bytes": 1 << 30,
    "messages_rate": (10_000, 10_000),
    "subscribe_rate": (10_000, 10_000),
}
"""Limits for a client that receives and asks for more in a second than a browser would."""


class Listener:
    """A subscriber, which notes when each event arrives."""

    def __init__(self) -> None:
        self.arrivals: dict[int, int] = {}
        self.duplicates = 0
        self.socket: RawSocket | None = None

    async def open(
        self, server: MeasuredServer, user: int, collections: Sequence[str] = ("posts",)
    ) -> None:
        """Connect, authenticate and subscribe."""
        self.socket = socket = await RawSocket.open(server.url, on_text=self._receive)
        await socket.authenticate(token(user))
        for name in collections:
            subscribe = {"type": "subscribe", "collection": name, "filters": {"status": "s0"}}
            await socket.request({**subscribe, "subscription": name}, '"subscribed"')

    async def open_bare(self, server: MeasuredServer) -> None:
        """Connect to `benchmarks.site.bare_bell`."""
        self.socket = await RawSocket.open(server.url, on_text=self._receive)
        await self.socket.request({}, "ok")

    def _receive(self, text: bytes, at: int) -> None:
        for number in (int(match[0]) for match in MARK.findall(text)):
            if number >= FIRST_WARM_UP:
                continue
            if number in self.arrivals:
                self.duplicates += 1
            self.arrivals[number] = at

    def close(self) -> None:
        """Close the socket."""
        if self.socket is not None:
            self.socket.abort()


def database_process() -> int | None:
    """Return the id of PostgreSQL's first process; None on SQLite."""
    from django.db import connection

    if connection.vendor != "postgresql":
        return None
    with connection.cursor() as cursor:
        cursor.execute("SHOW data_directory")
        (folder,) = cursor.fetchone()
    connection.close()
    return int(Path(folder, "postmaster.pid").read_text().split()[0])


async def measure_run(
    servers: list[MeasuredServer],
    listeners: list[Listener],
    savers: list[Saver],
    database: int | None = None,
) -> dict[str, Any]:
    """Let the savers save, wait until all events have arrived everywhere, and return the figures.

    The CPU of the servers includes what they do regularly, such as polls.
    """
    for listener in listeners:
        listener.arrivals.clear()
        listener.duplicates = 0
    try:
        await asyncio.gather(*(asyncio.to_thread(saver.wait_ready) for saver in savers))
        await asyncio.sleep(0.5)  # the first saves arrive
        before = [server.cpu for server in servers]
        database_before = cpu_seconds(database) if database else 0.0
        for saver in savers:
            saver.start()
        results = await asyncio.gather(*(asyncio.to_thread(saver.result) for saver in savers))
    finally:
        for saver in savers:
            saver.stop()
    commits = {number: at for result in results for number, at in result["commits"].items()}
    loop = asyncio.get_running_loop()
    deadline = loop.time() + ARRIVAL_TIMEOUT
    while loop.time() < deadline and any(len(one.arrivals) < len(commits) for one in listeners):
        await asyncio.sleep(0.02)
    spent = [server.cpu - cpu for server, cpu in zip(servers, before, strict=True)]
    database_spent = cpu_seconds(database) - database_before if database else 0.0
    await asyncio.sleep(0.2)  # duplicates arrive
    return figures(commits, listeners, spent) | {
        "save_us": sum(result["cpu"] for result in results) / len(commits) * 1e6,
        "database_us": database_spent / len(commits) * 1e6,
    }


def figures(
    commits: dict[int, int], listeners: list[Listener], spent: list[float]
) -> dict[str, Any]:
    """Return the figures of a run; ``spent`` are the CPU seconds of each server.

    The server with the highest one numbers the events, if only one does.
    """
    events = len(commits)
    delays = [
        (at - commits[number]) / 1e6
        for listener in listeners
        for number, at in listener.arrivals.items()
        if number in commits
    ]
    arrivals = [at for listener in listeners for at in listener.arrivals.values()]
    costs = sorted((cpu / events * 1e6 for cpu in spent), reverse=True)
    seconds = (max(arrivals) - min(commits.values())) / 1e9 if arrivals else None
    return {
        "events": events,
        "events_per_second": events / seconds if seconds else None,
        "server_us": costs[0] if costs else None,
        "further_us": sum(costs[1:]) / len(costs[1:]) if costs[1:] else None,
        "together_us": sum(costs),
        "p50_ms": percentile(delays, 0.5) if delays else None,
        "p99_ms": percentile(delays, 0.99) if delays else None,
        "lost": sum(len(commits.keys() - listener.arrivals.keys()) for listener in listeners),
        "duplicates": sum(listener.duplicates for listener in listeners),
        "phantoms": sum(len(listener.arrivals.keys() - commits.keys()) for listener in listeners),
    }


def add_faults(rows: list[dict[str, Any]]) -> int:
    """Return the number of lost, duplicate and invented events of all rows."""
    faults: Counter[str] = Counter()
    for row in rows:
        faults.update({name: row.get(name) or 0 for name in ("lost", "duplicates", "phantoms")})
    return faults.total()


def change_databases(server: MeasuredServer, **settings: Any) -> None:
    """Change settings of the default database of a server that has not been started."""
    databases = json.loads(server.env["REALTIME_TEST_DATABASES"])
    databases["default"].update(settings)
    server.env["REALTIME_TEST_DATABASES"] = json.dumps(databases)

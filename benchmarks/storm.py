"""All clients of a server return after its restart: the time until each has what it missed.

    python -m benchmarks.storm                           # 1,000 clients, SQLite and PostgreSQL
    python -m benchmarks.storm --clients 10000 --database postgres

The server is killed and started again, and rows are saved in between. As soon as it listens, each
client waits for a random part of half a second, connects, authenticates and resumes. Others, which
were back before them, receive 20 saves per second meanwhile, or 2 if there are 10,000. The same
clients then return to a raw ASGI application, which sends the same frames and checks nothing. The
clients are minimal, so that the server is measured: `benchmarks.reconnect_storm` does the same with
the client of this project.
Exits with 1 if a client was refused, or missed a change or received one twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import sys
import time
from typing import Any

from benchmarks import results, targets
from benchmarks.common import percentile, print_line, run_for_each_database, set_up
from benchmarks.loader import MARK
from benchmarks.paths import PLENTY
from benchmarks.raw_socket import RawSocket
from benchmarks.saver import FIRST_WARM_UP, Saver
from benchmarks.targets import MeasuredServer, asgi, token

CHANGES = 20  # saved while the server is down
OTHERS = 20  # clients that are back before the rest
SAVES_PER_SECOND = 20.0  # while the rest return, if there are few
DELIVERIES_PER_SECOND = 20_000.0  # of these saves, when all have returned; more would be the load
SPREAD = 0.5  # seconds over which the clients begin to return
ROUND_TIMEOUT = 120.0  # seconds
SUBSCRIBE = {"type": "subscribe", "collection": "posts", "filters": {"status": "s0"}}
GOALS = {1000: 2.5, 10_000: 25.0}  # seconds, by the number of clients
GOAL_OTHERS = 250.0  # p99 in ms of the events of the others
Row = dict[str, Any]


class Client:
    """A client that resumes, with its own user."""

    def __init__(self, number: int) -> None:
        self.token = token(number)
        self.resume: dict[str, Any] = {}
        self.numbers: list[int] = []
        # milliseconds since the save, of each event
        self.delays: list[float] = []
        # monotonic time at which it has received all that it had missed; 0 if it has not
        self.done_at = 0.0
        self.socket: RawSocket | None = None
        # what the server answered instead
        self.refused: str | None = None
        # the frames that it has received until then
        self.texts: list[str] = []

    async def open(self, server: MeasuredServer) -> None:
        """Connect, authenticate and subscribe, with the cursor of the last time if there is one."""
        self.numbers.clear()
        self.delays.clear()
        self.texts.clear()
        self.done_at = 0.0
        self.socket = await RawSocket.open(server.url, on_text=self._receive, timeout=60)
        auth = {"type": "auth", "token": self.token}
        await self.socket.request(auth, '"authenticated"', 60)
        text = await self.socket.request({**SUBSCRIBE, **self.resume}, '"subscribed"', 60)
        reply = json.loads(text)
        if self.resume and not reply["resumed"]:
            raise OSError(text.decode())
        self.resume = {"since": reply["cursor"], "scope": reply["scope"]}

    async def come_back(self, server: MeasuredServer) -> None:
        """Open after a random time, and note what fails."""
        await asyncio.sleep(SPREAD * random.random())
        try:
            await self.open(server)
        except (OSError, TimeoutError) as error:
            self.refused = repr(error)

    def _receive(self, text: bytes, at: int) -> None:
        if not self.done_at:
            self.texts.append(text.decode())
        for number, saved_at in MARK.findall(text):
            if int(number) < FIRST_WARM_UP:
                self.numbers.append(int(number))
                self.delays.append((at - int(saved_at)) / 1e6)
                if not self.done_at and len(self.numbers) >= CHANGES:
                    self.done_at = at / 1e9

    def close(self) -> None:
        """Close the socket."""
        if self.socket is not None:
            self.socket.abort()

    def faults(self) -> tuple[int, int]:
        """Return how many of the changes it has missed, and how many events came twice."""
        missed = set(range(CHANGES)) - set(self.numbers)
        return len(missed), len(self.numbers) - len(set(self.numbers))


async def open_all(clients: list[Client], server: MeasuredServer) -> None:
    """Connect clients for the first time, some at a time."""
    for start in range(0, len(clients), 50):
        await asyncio.gather(*(one.open(server) for one in clients[start : start + 50]))


async def restart(server: MeasuredServer, env: dict[str, str], saves: bool) -> None:
    """Kill the server, save the changes, and start it again."""
    await asyncio.to_thread(server.kill)
    if saves:
        saver = Saver(env, "watched", count=CHANGES)
        await asyncio.to_thread(saver.wait_ready)
        saver.start()
        await asyncio.to_thread(saver.result)
    await asyncio.to_thread(server.start)


async def storm(
    server: MeasuredServer, clients: list[Client], others: list[Client], env: dict[str, str]
) -> Row:
    """Restart the server and measure the return of all its clients."""
    await open_all([*others, *clients], server)
    await restart(server, env, saves=bool(others))
    saver = None
    if others:
        await open_all(others, server)
        rate = min(SAVES_PER_SECOND, DELIVERIES_PER_SECOND / len(clients))
        saver = Saver(env, "watched", rate=rate, seconds=ROUND_TIMEOUT, first=CHANGES)
        await asyncio.to_thread(saver.wait_ready)
        saver.start()
        await asyncio.sleep(0.5)
        for other in others:
            other.delays.clear()
    up = time.monotonic()
    cpu = server.cpu
    returning = asyncio.gather(*(client.come_back(server) for client in clients))
    while time.monotonic() - up < ROUND_TIMEOUT:
        await asyncio.sleep(0.05)
        if all(client.done_at or client.refused for client in clients):
            break
    spent = server.cpu - cpu
    returning.cancel()
    delays = [delay for other in others for delay in other.delays]
    if saver is not None:
        saver.stop()
    back = [client.done_at - up for client in clients if client.done_at]
    faults = [client.faults() for client in (*others, *clients)]
    return {
        "clients": len(clients),
        "returned": len(back),
        "p50_s": percentile(back, 0.5) if back else None,
        "last_s": max(back) if back else None,
        "others_p99_ms": percentile(delays, 0.99) if delays else None,
        "us_per_client": spent / len(clients) * 1e6,
        "lost": sum(missed for missed, _ in faults),
        "duplicates": sum(twice for _, twice in faults),
        "refused": next((client.refused for client in clients if client.refused), None),
    }


async def measure(arguments: argparse.Namespace, redis: Any) -> list[Row]:
    """Measure a server of this project, and the raw application."""
    from benchmarks.site.settings import COCOBASE_REALTIME

    settings = {"LIMITS": {**COCOBASE_REALTIME["LIMITS"], **PLENTY}}
    kind = arguments.server
    layers = redis.layer("pubsub")
    server = asgi(kind, "realtime", layers=layers, settings=settings, shared=True)
    clients = [Client(number) for number in range(arguments.clients)]
    others = [Client(len(clients) + number) for number in range(OTHERS)]
    try:
        await asyncio.to_thread(server.start)
        row = await storm(server, clients, others, server.env)
    finally:
        server.kill()
        for client in (*clients, *others):
            client.close()
    rows = [{"name": "realtime", **row}]
    texts = next((client.texts for client in clients if client.done_at), None)
    if texts is None:
        return rows
    answers = json.dumps([texts[:1], texts[1:2], texts[1:]])
    raw = asgi(kind, "raw_arrivals", shared=True, BENCH_ANSWERS=answers)
    clients = [Client(number) for number in range(arguments.clients)]
    try:
        await asyncio.to_thread(raw.start)
        row = await storm(raw, clients, [], server.env)
    finally:
        raw.kill()
        for client in clients:
            client.close()
    rows.append({"name": "raw ASGI application", **row})
    for row in rows:
        if row["last_s"] and rows[-1]["last_s"]:
            row["ratio"] = row["last_s"] / rows[-1]["last_s"]
        row["cpu_ratio"] = row["us_per_client"] / rows[-1]["us_per_client"]
    return rows


def measure_database(arguments: argparse.Namespace) -> None:
    """Measure one database; print the rows on the last line."""
    from tests.support.servers import Redis

    set_up(arguments.database, "benchmarks.site.settings")
    redis = Redis()
    redis.start()
    print_line(f"\n{arguments.database}, {arguments.server}, {arguments.clients} clients return")
    try:
        rows = asyncio.run(measure(arguments, redis))
    finally:
        redis.kill()
    for row in rows:
        is_realtime = row["name"] == "realtime"
        row["goal_s"] = GOALS.get(arguments.clients) if is_realtime else None
        row["goal_others_ms"] = GOAL_OTHERS if is_realtime else None
        goal = f" (goal {row['goal_s']} s)" if row["goal_s"] else ""
        others = row["others_p99_ms"]
        print_line(
            f"    {row['name']:22} {row['returned']} back, p50 {row['p50_s'] or 0:.2f} s, "
            f"last {row['last_s'] or 0:.2f} s{goal}, {row.get('ratio', 0):.1f}× raw; "
            f"{row['us_per_client']:.0f} µs CPU per client, {row.get('cpu_ratio', 0):.1f}× raw"
            + (f"; others' p99 {others:.0f} ms (goal {GOAL_OTHERS:.0f})" if others else "")
            + f"; lost {row['lost']}, twice {row['duplicates']}  {row['refused'] or ''}"
        )
    rows = [{"database": arguments.database, "server": arguments.server, **row} for row in rows]
    print_line(json.dumps(rows))


def main() -> int:
    rows = run_for_each_database("storm")
    print_line(f"\nwritten to {results.save('storm', rows, changes=CHANGES).name}")
    return int(any(row["lost"] or row["duplicates"] or row["refused"] for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"], help="this one alone")
    parser.add_argument("--server", choices=targets.KINDS, default="uvicorn")
    parser.add_argument("--clients", type=int, default=1000)
    chosen = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if chosen.database:
        measure_database(chosen)
    else:
        sys.exit(main())

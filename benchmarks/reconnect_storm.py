"""A server dies with all its clients connected, and comes back: how long until all have resumed?

python -m benchmarks.reconnect_storm                       # 1,000 clients, daphne and uvicorn
python -m benchmarks.reconnect_storm --clients 300 --server uvicorn --rounds 3
python -m benchmarks.reconnect_storm --unauthenticated 10  # the default limit of that name

All clients come from one address, which the default limits forbid: ``connections_per_address``
and ``unauthenticated_per_address`` are raised to twice their number, unless said otherwise. While
the server is away ``CHANGES`` rows are saved; each client must get each of them once. Ends with 1
where a client failed, missed something, or took longer than ``--within`` seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import resource
import socket
import sys
import time
from collections import Counter
from typing import Any

from benchmarks.common import median, percentile, say, set_up

CHANGES = 20
PATIENCE = 120.0  # seconds after which a round is given up


class Fleet:
    """Clients that each watch one collection, and what became of them."""

    def __init__(self, url: str, key: str, size: int) -> None:
        from django_cocobase_realtime.client import Realtime

        self.attempts = 0
        self.errors: Counter[str] = Counter()
        self.over: list[Any] = []
        self.got: list[Counter[str]] = [Counter() for _ in range(size)]
        self.live_at = [0.0] * size
        self.done_at = [0.0] * size
        self.expected: set[str] = set()
        self.resyncs = 0
        self.clients = [
            Realtime(
                url,
                token=key,
                proxy=None,
                on_status=lambda status, detail, n=n: self._status(n, status, detail),
                on_error=lambda error: self.errors.update([str(error.code)]),
            )
            for n in range(size)
        ]
        self.tasks: list[asyncio.Task[None]] = []

    def _status(self, number: int, status: str, detail: Any) -> None:
        if status == "connecting":
            self.attempts += 1
        elif status == "live":
            self.live_at[number] = time.monotonic()
        elif status == "closed" and detail["code"] != 1000:
            self.over.append(detail["code"])

    async def connect(self) -> None:
        watches = []
        for number, client in enumerate(self.clients):
            watch = client.watch("messages")
            self.tasks.append(asyncio.create_task(self._read(number, watch)))
            watches.append(watch)
            client.start()
            if number % 20 == 19:
                await asyncio.sleep(0.1)  # people come one by one; after a crash they do not
        await asyncio.gather(*(watch.ready() for watch in watches))

    async def _read(self, number: int, watch: Any) -> None:
        async for event in watch:
            if event.event == "resync":
                self.resyncs += 1
                continue
            self.got[number][event.data["text"]] += 1
            if len(self.got[number]) >= len(self.expected) > 0:
                self.done_at[number] = time.monotonic()

    def expect(self, texts: set[str]) -> None:
        self.expected = texts
        self.attempts = self.resyncs = 0
        self.errors.clear()
        self.live_at = [0.0] * len(self.clients)
        self.done_at = [0.0] * len(self.clients)
        for got in self.got:
            got.clear()

    def finished(self) -> bool:
        return all(self.done_at) or bool(self.over)

    async def close(self) -> None:
        await asyncio.gather(*(client.close() for client in self.clients))
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def measure(kind: str, options: argparse.Namespace) -> bool:
    from asgiref.sync import sync_to_async

    from django_cocobase_realtime.client.backoff import STABLE_AFTER
    from django_cocobase_realtime.models import ApiKey
    from tests.app.models import Message
    from tests.support.servers import AsgiServer

    key = await sync_to_async(lambda: ApiKey.objects.create_key("storm")[1])()
    limits = {
        "connections_per_address": 2 * options.clients,
        "unauthenticated_per_address": options.unauthenticated or 2 * options.clients,
    }
    server = AsgiServer(kind, settings={"LIMITS": limits})
    if kind == "daphne" and options.backlog:
        endpoint = f"tcp:port={server.port}:interface=127.0.0.1:backlog={options.backlog}"
        application = server.command[-1]
        server.command = [sys.executable, "-m", "daphne", "-e", endpoint, application]
    await asyncio.to_thread(server.start)
    fleet = Fleet(server.socket_url, key, options.clients)
    began = time.monotonic()
    passed = True
    try:
        await asyncio.wait_for(fleet.connect(), PATIENCE)
        took = time.monotonic() - began
        say(f"\n{kind}: {options.clients} clients connected in {took:.1f} s")
        for number in range(options.rounds):
            # clients back off from a server that dies again before this time
            await asyncio.sleep(STABLE_AFTER + 1)
            texts = {f"{number}.{n}" for n in range(CHANGES)}
            fleet.expect(texts)
            await asyncio.to_thread(server.kill)
            killed = time.monotonic()
            for text in sorted(texts):
                await Message.objects.acreate(text=text)
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            up = await asyncio.to_thread(listening, server.port)
            await starting
            while not fleet.finished() and time.monotonic() - up < PATIENCE:
                await asyncio.sleep(0.1)
            passed &= report(fleet, texts, killed, up, options.within)
    finally:
        await fleet.close()
        await asyncio.to_thread(server.stop)
    return passed


def listening(port: int) -> float:
    """When the server's port is open: the rush begins before it answers anything else."""
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return time.monotonic()
        time.sleep(0.02)


def report(fleet: Fleet, texts: set[str], killed: float, up: float, within: float) -> bool:
    back = [at - up for at in fleet.live_at if at]
    resumed = [at - up for at in fleet.done_at if at]
    missed = sum(len(texts - got.keys()) for got in fleet.got)
    twice = sum(count - 1 for got in fleet.got for count in got.values() if count > 1)
    size = len(fleet.clients)
    say(f"  killed; listens again after {up - killed:.1f} s; from then on, in seconds:")
    for name, times in (("back", back), ("resumed", resumed)):
        if times:
            figures = (median(times), percentile(times, 0.99), max(times))
            p50, p99, most = (f"{each:5.1f}" for each in figures)
            say(f"    {name:8} {len(times):5} of {size}   p50 {p50}   p99 {p99}   max {most}")
    say(
        f"    missed {missed}, twice {twice}, resyncs {fleet.resyncs}, failed {len(fleet.over)},"
        f" attempts {fleet.attempts}, errors {dict(fleet.errors)}"
    )
    fine = len(resumed) == size and max(resumed) <= within and not (missed or twice or fleet.over)
    say(f"    {'all' if fine else 'NOT all'} back and resumed within {within:g} s")
    return fine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--server", choices=["daphne", "uvicorn"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--within", type=float, default=15.0)
    parser.add_argument("--unauthenticated", type=int, help="unauthenticated_per_address")
    parser.add_argument("--backlog", type=int, default=1024, help="daphne's; 0: its own, 50")
    parser.add_argument("--database", choices=["sqlite", "postgres"], default="sqlite")
    options = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * options.clients + 200
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
    logging.getLogger("django_cocobase_realtime.client").setLevel(logging.ERROR)
    set_up(options.database)
    kinds = [options.server] if options.server else ["daphne", "uvicorn"]
    passed = [asyncio.run(measure(kind, options)) for kind in kinds]
    return int(not all(passed))


if __name__ == "__main__":
    sys.exit(main())

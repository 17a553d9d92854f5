"""Kill a server with many clients and restart it: measure how long until all have resumed.

python -m benchmarks.reconnect_storm                       # 1,000 clients, daphne and uvicorn
python -m benchmarks.reconnect_storm --clients 300 --server uvicorn --rounds 3
python -m benchmarks.reconnect_storm --unauthenticated 10  # the default limit of that name

All clients have one address, which the default limits forbid: ``connections_per_address`` and
``unauthenticated_per_address`` are raised to twice their number, unless given. While the server is
down, ``CHANGES`` rows are saved, and each client must receive each of them once. Exits with 1 if a
client failed, missed an event, or took longer than ``--within`` seconds.
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

from benchmarks.common import median, percentile, print_line, set_up

CHANGES = 20
ROUND_TIMEOUT = 120.0  # seconds


class Fleet:
    """Clients that each watch one collection, and their state."""

    def __init__(self, url: str, key: str, size: int) -> None:
        from django_cocobase_realtime.client import Realtime

        self.attempts = 0
        self.errors: Counter[str] = Counter()
        self.closed_codes: list[Any] = []
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
            self.closed_codes.append(detail["code"])

    async def connect(self) -> None:
        watches = []
        for number, client in enumerate(self.clients):
            watch = client.watch("messages")
            self.tasks.append(asyncio.create_task(self._read(number, watch)))
            watches.append(watch)
            client.start()
            if number % 20 == 19:
                await asyncio.sleep(0.1)  # first connections are spread; reconnects are not
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
        return all(self.done_at) or bool(self.closed_codes)

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
        await asyncio.wait_for(fleet.connect(), ROUND_TIMEOUT)
        took = time.monotonic() - began
        print_line(f"\n{kind}: {options.clients} clients connected in {took:.1f} s")
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
            up = await asyncio.to_thread(wait_for_port, server.port)
            await starting
            while not fleet.finished() and time.monotonic() - up < ROUND_TIMEOUT:
                await asyncio.sleep(0.1)
            passed &= report(fleet, texts, killed, up, options.within)
    finally:
        await fleet.close()
        await asyncio.to_thread(server.stop)
    return passed


def wait_for_port(port: int) -> float:
    """Wait until the server's port is open, when the reconnects start; return the time."""
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
    print_line(f"  killed; listens again after {up - killed:.1f} s; from then on, in seconds:")
    for name, times in (("back", back), ("resumed", resumed)):
        if times:
            figures = (median(times), percentile(times, 0.99), max(times))
            p50, p99, most = (f"{figure:5.1f}" for figure in figures)
            print_line(
                f"    {name:8} {len(times):5} of {size}   p50 {p50}   p99 {p99}   max {most}"
            )
    print_line(
        f"    missed {missed}, twice {twice}, resyncs {fleet.resyncs}, "
        f"failed {len(fleet.closed_codes)}, attempts {fleet.attempts}, errors {dict(fleet.errors)}"
    )
    fine = (
        len(resumed) == size
        and max(resumed) <= within
        and not (missed or twice or fleet.closed_codes)
    )
    print_line(f"    {'all' if fine else 'NOT all'} back and resumed within {within:g} s")
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

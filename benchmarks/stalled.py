"""One of 100 clients stops reading: the latency of the others, the memory, and the close code.

    python -m benchmarks.stalled

Sends the same events with and without the stalled client, in one run. Measures the p99 latency of
the other clients, the growth of the server's resident memory, and the close code that the stalled
client finds when it reads again. The raw ASGI loop shows what happens if each send is awaited in
turn.

Then measures the memory of one stalled client for each kind of request (`stalled_memory`).

    python -m benchmarks.stalled --only memory --kinds replays snapshots --server daphne
"""

from __future__ import annotations

import argparse
import sys
import threading
from typing import Any

from benchmarks import results, stalled_memory, targets
from benchmarks.common import median, print_line, set_up
from benchmarks.load import Load
from benchmarks.targets import Target

PADDING_BYTES = 16_000  # in each document, so that socket buffers fill quickly
RECEIVE_BUFFER_BYTES = 4096  # size of the stalled client's buffer


class PeakMemory:
    """Record the highest resident memory while it runs."""

    def __init__(self, target: Target) -> None:
        self._server = target.server
        self._done = threading.Event()
        self.first = self.highest = self._server.rss
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        while not self._done.wait(0.05):
            self.highest = max(self.highest, self._server.rss)

    def stop(self) -> int:
        """Return the growth in bytes since the start."""
        self._done.set()
        self._thread.join()
        return self.highest - self.first


def measure(kind: str, row: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure two servers in turn, one second each; on one of them a client is stalled."""
    make_target = {"realtime": targets.realtime, "raw ASGI loop": targets.raw_asgi}[row]
    measured = [make_target(kind, row, BENCH_PAD=str(PADDING_BYTES)) for _ in range(2)]
    loads = [Load(), Load()]
    rounds: list[list[dict[str, Any]]] = [[], []]
    try:
        for target, load in zip(measured, loads, strict=True):
            target.server.start()
            url = target.server.url
            load.open(
                [
                    (url, 0, target.steps(n, 0), RECEIVE_BUFFER_BYTES if n == 0 else None)
                    for n in range(arguments.subscribers)
                ]
            )
            load.begin()
            load.paced([target.server.control], arguments.rate, 20)  # warms up
        peaks = [PeakMemory(target) for target in measured]
        loads[1].stall(0)
        for _ in range(int(arguments.seconds)):
            for target, load, round_results in zip(measured, loads, rounds, strict=True):
                events = int(arguments.rate)
                round_results.append(load.paced([target.server.control], arguments.rate, events, 2))
        growth = [peak.stop() for peak in peaks]
        end = loads[1].wake(0, 10)
    finally:
        for target, load in zip(measured, loads, strict=True):
            load.stop()
            target.server.kill()
    without, with_it = (median(r["p99_ms"] or float("inf") for r in results) for results in rounds)
    return {
        "name": row,
        "p99_without_ms": without,
        "p99_with_ms": with_it,
        "ratio": with_it / without,
        "deliveries": sum(r["deliveries"] for r in rounds[1]),
        "lost": sum(r["lost"] for r in rounds[1]),
        "growth_without_kib": growth[0] / 1024,
        "growth_kib": growth[1] / 1024,
        "code": end["code"],
        "waited_for_it_kib": end["bytes"] / 1024,
    }


def measure_latency(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure the latency of other clients with each server; print and return the rows."""
    rows: list[dict[str, Any]] = []
    for kind in arguments.server:
        print_line(
            f"\n{kind}, one of {arguments.subscribers} reads nothing, "
            f"{arguments.rate:.0f} events of {PADDING_BYTES / 1000:.0f} kB per second"
        )
        for name in ("raw ASGI loop", "realtime"):
            row = measure(kind, name, arguments)
            rows.append({"server": kind, **row})
            print_line(
                f"    {name:14} p99 of the others {row['p99_without_ms']:.1f} -> "
                f"{row['p99_with_ms']:.1f} ms ({row['ratio']:.2f}x), lost {row['lost']} of "
                f"{row['deliveries']}, grew {row['growth_kib']:.0f} KiB "
                f"({row['growth_without_kib']:.0f} without), {row['waited_for_it_kib']:.0f} KiB "
                f"waited for it, closed {row['code']}"
            )
    return rows


def main(arguments: argparse.Namespace) -> int:
    set_up("sqlite", "benchmarks.site.settings")
    previous = results.load("stalled") or {"rows": [], "memory": [], "rate": arguments.rate}
    rows, memory = previous["rows"], previous.get("memory", [])
    if arguments.only != "memory":
        rows = measure_latency(arguments)
    if arguments.only != "latency":
        memory = stalled_memory.measure_all(arguments.server, arguments)
    path = results.save("stalled", rows, rate=arguments.rate, memory=memory)
    print_line(f"\nwritten to {path.name}")
    realtime = [row for row in rows if row["name"] == "realtime"]
    return int(any(row["lost"] or row["code"] != 4120 for row in realtime))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", nargs="+", choices=targets.KINDS, default=targets.KINDS)
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--rate", type=float, default=50.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--only", choices=["latency", "memory"], help="of the two measurements")
    parser.add_argument("--kinds", nargs="+", metavar="WORD", help="kinds of requests, by words")
    sys.exit(main(parser.parse_args()))

"""One client that stops reading, among 100: what the others feel, what it costs, how it ends.

    python -m benchmarks.stalled

The same events without and with it, in one run: p99 of the others, growth of the server's
resident memory, and the close code that the stalled client finds when it reads again. The raw
ASGI loop beside it shows what happens where every send is awaited in turn, or never waits.
"""

from __future__ import annotations

import argparse
import sys
import threading
from typing import Any

from benchmarks import results, targets
from benchmarks.common import median, say, set_up
from benchmarks.load import Load
from benchmarks.targets import Target

PAD = 16_000  # more bytes a document, so that socket buffers are soon full
BUFFER = 4096  # of the stalled client's socket


class Peak:
    """The highest resident memory while it runs."""

    def __init__(self, target: Target) -> None:
        self._server = target.server
        self._done = threading.Event()
        self.first = self.highest = self._server.rss
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._done.wait(0.05):
            self.highest = max(self.highest, self._server.rss)

    def stop(self) -> int:
        """Bytes over the beginning."""
        self._done.set()
        self._thread.join()
        return self.highest - self.first


def measure(kind: str, row: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Two servers in turn, a second each: on one of them a client is stalled."""
    make = {"realtime": targets.realtime, "raw ASGI loop": targets.raw_asgi}[row]
    made = [make(kind, row, BENCH_PAD=str(PAD)) for _ in range(2)]
    loads = [Load(), Load()]
    rounds: list[list[dict[str, Any]]] = [[], []]
    try:
        for target, load in zip(made, loads, strict=True):
            target.server.start()
            url = target.server.url
            load.open(
                [
                    (url, 0, target.steps(n, 0), BUFFER if n == 0 else None)
                    for n in range(arguments.subscribers)
                ]
            )
            load.begin()
            load.paced([target.server.control], arguments.rate, 20)  # warm
        peaks = [Peak(target) for target in made]
        loads[1].stall(0)
        for _ in range(int(arguments.seconds)):
            for target, load, told in zip(made, loads, rounds, strict=True):
                events = int(arguments.rate)
                told.append(load.paced([target.server.control], arguments.rate, events, 2))
        growth = [peak.stop() for peak in peaks]
        end = loads[1].wake(0, 10)
    finally:
        for target, load in zip(made, loads, strict=True):
            load.stop()
            target.server.kill()
    without, with_it = (median(r["p99_ms"] or float("inf") for r in told) for told in rounds)
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


def main(arguments: argparse.Namespace) -> int:
    set_up("sqlite", "benchmarks.site.settings")
    rows: list[dict[str, Any]] = []
    for kind in arguments.server:
        say(
            f"\n{kind}, one of {arguments.subscribers} reads nothing, "
            f"{arguments.rate:.0f} events of {PAD / 1000:.0f} kB a second"
        )
        for name in ("raw ASGI loop", "realtime"):
            row = measure(kind, name, arguments)
            rows.append({"server": kind, **row})
            say(
                f"    {name:14} p99 of the others {row['p99_without_ms']:.1f} -> "
                f"{row['p99_with_ms']:.1f} ms ({row['ratio']:.2f}x), lost {row['lost']} of "
                f"{row['deliveries']}, grew {row['growth_kib']:.0f} KiB "
                f"({row['growth_without_kib']:.0f} without), {row['waited_for_it_kib']:.0f} KiB "
                f"waited for it, closed {row['code']}"
            )
    say(f"\nwritten to {results.save('stalled', rows, rate=arguments.rate).name}")
    mine = [row for row in rows if row["name"] == "realtime"]
    return int(any(row["lost"] or row["code"] != 4120 for row in mine))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", nargs="+", choices=targets.KINDS, default=targets.KINDS)
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--rate", type=float, default=50.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=6.0)
    sys.exit(main(parser.parse_args()))

"""What a connection and a subscription weigh, against a bare ASGI connection on the same server.

    python -m benchmarks.memory                          # 10,000 idle connections in one process

Resident memory of the server before and after; each of our connections is authenticated and
subscribed with a filter of its own. And 100 subscriptions on each of 100 connections. "idle CPU"
is the share of a core that all of them cost while nothing happens.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from benchmarks import results, targets
from benchmarks.common import say, set_up
from benchmarks.load import Load, Step
from benchmarks.targets import Target

WARM = 100  # connections that are open before the first look
IDLE = 20.0  # seconds of doing nothing: both servers ping once in so many
MANY = 100  # subscriptions a connection


def connections(target: Target, count: int) -> dict[str, Any]:
    """Bytes a connection over ``count`` of them."""
    server = target.server
    with Load() as load:
        server.start()
        try:
            load.open([(server.url, 0, target.steps(n, 0)) for n in range(WARM)])
            time.sleep(1)
            before = server.rss
            told = load.open(
                [(server.url, 0, target.steps(n, 0)) for n in range(WARM, WARM + count)], 180
            )
            time.sleep(1)
            after, cpu = server.rss, server.cpu
            load.quiet(IDLE)
            idle = (server.cpu - cpu) / IDLE
            return {
                "name": target.name,
                "connections": told["open"] - WARM,
                "refused": told["refused"],
                "bytes_each": (after - before) / count,
                "rss_mib": after / 2**20,
                "opened_per_second": count / told["seconds"],
                "idle_cpu_percent": 100 * idle,
            }
        finally:
            server.kill()


def subscriptions(kind: str, count: int) -> dict[str, Any]:
    """Bytes a subscription: ``MANY`` on each connection, each with a filter of its own."""
    target = targets.realtime(kind)
    server = target.server

    def many(number: int, first: int, last: int) -> list[Step]:
        frames = [
            {
                "type": "subscribe",
                "collection": "posts",
                "subscription": f"posts-{each}",
                "filters": {"status": f"{number}-{each}"},
            }
            for each in range(first, last)
        ]
        return [(json.dumps(frame), '"subscribed"') for frame in frames]

    with Load() as load:
        server.start()
        try:
            steps = [target.steps(n, 0)[:1] + many(n, 0, 1) for n in range(count)]
            load.open([(server.url, 0, each) for each in steps])
            time.sleep(1)
            before = server.rss
            told = load.again([(0, many(n, 1, MANY)) for n in range(count)])
            time.sleep(1)
            each = (server.rss - before) / (count * (MANY - 1))
            return {
                "name": "realtime, one more subscription",
                "subscriptions": count * MANY,
                "refused": told["refused"],
                "bytes_each": each,
            }
        finally:
            server.kill()


def main(arguments: argparse.Namespace) -> int:
    set_up("sqlite", "benchmarks.site.settings")
    rows: list[dict[str, Any]] = []
    for kind in arguments.server:
        say(f"\n{kind}, {arguments.connections} connections")
        floor = connections(targets.raw_asgi(kind, "raw ASGI connection"), arguments.connections)
        mine = connections(
            targets.realtime(kind, "realtime, one subscription"), arguments.connections
        )
        for row in (floor, mine):
            row["ratio_to_raw_asgi"] = row["bytes_each"] / floor["bytes_each"]
            say(
                f"    {row['name']:26} {row['bytes_each'] / 1024:6.1f} KiB each "
                f"({row['ratio_to_raw_asgi']:.2f}x)  {row['connections']} open, "
                f"{row['rss_mib']:.0f} MiB, "
                f"idle CPU {row['idle_cpu_percent']:.1f}%  {row['refused'] or ''}"
            )
        of_many = subscriptions(kind, arguments.many)
        say(
            f"    {of_many['name']:26} {of_many['bytes_each'] / 1024:6.2f} KiB each  "
            f"{of_many['subscriptions']} of them  {of_many['refused'] or ''}"
        )
        rows += [{"server": kind, **row} for row in (floor, mine, of_many)]
    say(f"\nwritten to {results.save('memory', rows).name}")
    return int(any(row["refused"] for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", nargs="+", choices=targets.KINDS, default=targets.KINDS)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=100, help="connections with 100 subscriptions")
    sys.exit(main(parser.parse_args()))

"""Memory per connection and per subscription, compared with a raw ASGI connection.

    python -m benchmarks.memory                          # 10,000 idle connections in one process

Measures the resident memory of the server before and after. Each realtime connection is
authenticated and has one subscription with its own filter. A second measurement opens 100
subscriptions on each of 100 connections. "idle CPU" is the share of one core that all connections
use while nothing happens.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

from benchmarks import results, targets
from benchmarks.common import print_line, set_up
from benchmarks.load import Load, Step
from benchmarks.targets import Target

WARM_CONNECTIONS = 100  # opened before the first measurement
IDLE_SECONDS = 20.0  # both servers ping at this interval
SUBSCRIPTIONS_PER_CONNECTION = 100


def connections(target: Target, count: int) -> dict[str, Any]:
    """Measure the bytes per connection with ``count`` connections."""
    server = target.server
    with Load() as load:
        server.start()
        try:
            load.open([(server.url, 0, target.steps(n, 0)) for n in range(WARM_CONNECTIONS)])
            time.sleep(1)
            before = server.rss
            result = load.open(
                [
                    (server.url, 0, target.steps(n, 0))
                    for n in range(WARM_CONNECTIONS, WARM_CONNECTIONS + count)
                ],
                180,
            )
            time.sleep(1)
            after, cpu = server.rss, server.cpu
            load.quiet(IDLE_SECONDS)
            idle = (server.cpu - cpu) / IDLE_SECONDS
            return {
                "name": target.name,
                "connections": result["open"] - WARM_CONNECTIONS,
                "refused": result["refused"],
                "bytes_each": (after - before) / count,
                "rss_mib": after / 2**20,
                "opened_per_second": count / result["seconds"],
                "idle_cpu_percent": 100 * idle,
            }
        finally:
            server.kill()


def subscriptions(kind: str, count: int) -> dict[str, Any]:
    """Measure the bytes per subscription with many subscriptions per connection."""
    target = targets.realtime(kind)
    server = target.server

    def many(number: int, first: int, last: int) -> list[Step]:
        frames = [
            {
                "type": "subscribe",
                "collection": "posts",
                "subscription": f"posts-{index}",
                "filters": {"status": f"{number}-{index}"},
            }
            for index in range(first, last)
        ]
        return [(json.dumps(frame), '"subscribed"') for frame in frames]

    with Load() as load:
        server.start()
        try:
            steps = [target.steps(n, 0)[:1] + many(n, 0, 1) for n in range(count)]
            load.open([(server.url, 0, client_steps) for client_steps in steps])
            time.sleep(1)
            before = server.rss
            result = load.send_steps(
                [(0, many(n, 1, SUBSCRIPTIONS_PER_CONNECTION)) for n in range(count)]
            )
            time.sleep(1)
            bytes_each = (server.rss - before) / (count * (SUBSCRIPTIONS_PER_CONNECTION - 1))
            return {
                "name": "realtime, one more subscription",
                "subscriptions": count * SUBSCRIPTIONS_PER_CONNECTION,
                "refused": result["refused"],
                "bytes_each": bytes_each,
            }
        finally:
            server.kill()


def main(arguments: argparse.Namespace) -> int:
    set_up("sqlite", "benchmarks.site.settings")
    rows: list[dict[str, Any]] = []
    for kind in arguments.server:
        print_line(f"\n{kind}, {arguments.connections} connections")
        raw = connections(targets.raw_asgi(kind, "raw ASGI connection"), arguments.connections)
        realtime = connections(
            targets.realtime(kind, "realtime, one subscription"), arguments.connections
        )
        for row in (raw, realtime):
            row["ratio_to_raw_asgi"] = row["bytes_each"] / raw["bytes_each"]
            print_line(
                f"    {row['name']:26} {row['bytes_each'] / 1024:6.1f} KiB each "
                f"({row['ratio_to_raw_asgi']:.2f}x)  {row['connections']} open, "
                f"{row['rss_mib']:.0f} MiB, "
                f"idle CPU {row['idle_cpu_percent']:.1f}%  {row['refused'] or ''}"
            )
        many = subscriptions(kind, arguments.many)
        print_line(
            f"    {many['name']:26} {many['bytes_each'] / 1024:6.2f} KiB each  "
            f"{many['subscriptions']} of them  {many['refused'] or ''}"
        )
        rows += [{"server": kind, **row} for row in (raw, realtime, many)]
    print_line(f"\nwritten to {results.save('memory', rows).name}")
    return int(any(row["refused"] for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", nargs="+", choices=targets.KINDS, default=targets.KINDS)
    parser.add_argument("--connections", type=int, default=10_000)
    parser.add_argument("--many", type=int, default=100, help="connections with 100 subscriptions")
    sys.exit(main(parser.parse_args()))

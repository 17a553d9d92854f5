"""Two server processes with a Redis layer, compared with one process.

    python -m benchmarks.processes

The same number of subscribers on one process and distributed over two. Measures the server CPU per
delivery and the Redis messages per event, which Redis counts (INFO commandstats), with and without
real saves. The throughput grows only if there are cores for two servers and the load generator. The
CPU per delivery does not depend on the number of cores.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from benchmarks import results, targets
from benchmarks.common import median, print_line, set_up
from benchmarks.load import Load

SEND_COMMANDS = {"pubsub": ("publish",), "core": ("exec",)}
"""The Redis command that each layer executes once per ``group_send``."""


def count_sent(redis: Any, layer: str) -> int:
    """Return the number of these commands that Redis has executed."""
    import redis as client

    stats = client.Redis(port=redis.port).info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in SEND_COMMANDS[layer])


def measure(
    kind: str, layer: str, count: int, redis: Any, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Measure one row with ``count`` processes."""
    measured = [
        targets.realtime(kind, layers=redis.layer(layer), shared=True) for _ in range(count)
    ]
    servers = [target.server for target in measured]
    ports = [servers[0].control]
    with Load() as load:
        try:
            for server in servers:
                server.start()
            result = load.open(
                [
                    (servers[n % count].url, 0, measured[n % count].steps(n, 0))
                    for n in range(arguments.subscribers)
                ]
            )
            load.begin()
            load.closed_loop(ports, seconds=0)
            rounds = []
            for _ in range(arguments.rounds):
                before = [server.cpu for server in servers], count_sent(redis, layer)
                run = load.closed_loop(ports, seconds=arguments.seconds)
                run["cpu"] = sum(server.cpu for server in servers) - sum(before[0])
                run["messages"] = count_sent(redis, layer) - before[1]
                rounds.append(run)
            late = load.quiet()["late"]
        finally:
            for server in servers:
                server.kill()
    return {
        "server": kind,
        "layer": layer,
        "processes": count,
        "subscribers": arguments.subscribers,
        "refused": result["refused"],
        "events": sum(r["events"] for r in rounds),
        "us_per_delivery": median(r["cpu"] / r["deliveries"] * 1e6 for r in rounds),
        "messages_per_event": sum(r["messages"] for r in rounds) / sum(r["events"] for r in rounds),
        "per_second": median(r["deliveries"] / r["wall"] for r in rounds),
        "p99_ms": median(r["p99_ms"] for r in rounds),
        "lost": sum(r["lost"] for r in rounds),
        "duplicates": sum(r["duplicates"] for r in rounds) + late,
    }


def measure_saves(kind: str, layer: str, redis: Any, subscribers: int) -> dict[str, Any]:
    """Measure the messages per event if each event is a save, with two processes."""
    measured = [targets.realtime(kind, layers=redis.layer(layer), shared=True) for _ in range(2)]
    events = 50
    with Load() as load:
        try:
            for target in measured:
                target.server.start()
            load.open(
                [
                    (measured[n % 2].server.url, 0, measured[n % 2].steps(n, 0))
                    for n in range(subscribers)
                ]
            )
            load.begin()
            before = count_sent(redis, layer)
            result = load.paced([measured[0].server.control], 20, events, save=True)
            messages = count_sent(redis, layer) - before
        finally:
            for target in measured:
                target.server.kill()
    return {
        "server": kind,
        "layer": layer,
        "processes": 2,
        "saves": events,
        "subscribers": subscribers,
        "messages_per_event": messages / events,
        "lost": result["lost"],
        "duplicates": result["duplicates"],
    }


def main(arguments: argparse.Namespace) -> int:
    from tests.support.servers import Redis

    set_up("sqlite", "benchmarks.site.settings")
    redis = Redis()
    redis.start()
    rows: list[dict[str, Any]] = []
    try:
        for layer in arguments.layer:
            for kind in arguments.server:
                print_line(f"\n{kind}, {layer} layer, {arguments.subscribers} subscribers")
                one = measure(kind, layer, 1, redis, arguments)
                two = measure(kind, layer, 2, redis, arguments)
                for row in (one, two):
                    row["ratio_to_one_process"] = row["us_per_delivery"] / one["us_per_delivery"]
                    row["throughput_ratio_to_one_process"] = row["per_second"] / one["per_second"]
                    print_line(
                        f"    {row['processes']} process(es): {row['us_per_delivery']:6.1f} µs CPU "
                        f"per delivery ({row['ratio_to_one_process']:.2f}x), "
                        f"{row['per_second']:.0f}/s "
                        f"({row['throughput_ratio_to_one_process']:.2f}x), "
                        f"{row['messages_per_event']:.2f} Redis messages per event, "
                        f"lost {row['lost']}, duplicates {row['duplicates']}"
                    )
                saved = measure_saves(kind, layer, redis, 100)
                print_line(
                    f"    real saves, 2 processes: {saved['messages_per_event']:.2f} messages per "
                    f"event, lost {saved['lost']}, duplicates {saved['duplicates']}"
                )
                rows += [one, two, saved]
    finally:
        redis.kill()
    print_line(f"\n{os.cpu_count()} cores. written to {results.save('processes', rows).name}")
    return int(any(row["lost"] + row["duplicates"] for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", nargs="+", choices=targets.KINDS, default=["uvicorn"])
    parser.add_argument(
        "--layer", nargs="+", choices=list(SEND_COMMANDS), default=list(SEND_COMMANDS)
    )
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    sys.exit(main(parser.parse_args()))

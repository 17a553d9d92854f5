"""Two server processes behind Redis: messages an event, and server CPU a delivery, against one.

    python -m benchmarks.processes

The same number of subscribers on one process and spread over two. Messages are Redis's own count
(INFO commandstats), for handed-over events and for real saves. Throughput grows only where there
are cores for two servers and the load generator; CPU a delivery says the same on any machine.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import Any

from benchmarks import results, targets
from benchmarks.common import median, say, set_up
from benchmarks.load import Load

SENDING = {"pubsub": ("publish",), "core": ("exec",)}
"""The command that comes once a ``group_send`` (core: it reads the group in a transaction)."""


def sent(redis: Any, layer: str) -> int:
    """How many of them Redis has seen."""
    import redis as client

    stats = client.Redis(port=redis.port).info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in SENDING[layer])


def measure(
    kind: str, layer: str, count: int, redis: Any, arguments: argparse.Namespace
) -> dict[str, Any]:
    """A row: ``count`` processes."""
    made = [targets.realtime(kind, layers=redis.layer(layer), shared=True) for _ in range(count)]
    servers = [target.server for target in made]
    ports = [servers[0].control]
    with Load() as load:
        try:
            for server in servers:
                server.start()
            told = load.open(
                [
                    (servers[n % count].url, 0, made[n % count].steps(n, 0))
                    for n in range(arguments.subscribers)
                ]
            )
            load.begin()
            load.closed_loop(ports, seconds=0)
            rounds = []
            for _ in range(arguments.rounds):
                before = [server.cpu for server in servers], sent(redis, layer)
                run = load.closed_loop(ports, seconds=arguments.seconds)
                run["cpu"] = sum(server.cpu for server in servers) - sum(before[0])
                run["messages"] = sent(redis, layer) - before[1]
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
        "refused": told["refused"],
        "events": sum(r["events"] for r in rounds),
        "us_per_delivery": median(r["cpu"] / r["deliveries"] * 1e6 for r in rounds),
        "messages_per_event": sum(r["messages"] for r in rounds) / sum(r["events"] for r in rounds),
        "per_second": median(r["deliveries"] / r["wall"] for r in rounds),
        "p99_ms": median(r["p99_ms"] for r in rounds),
        "lost": sum(r["lost"] for r in rounds),
        "duplicates": sum(r["duplicates"] for r in rounds) + late,
    }


def saves(kind: str, layer: str, redis: Any, subscribers: int) -> dict[str, Any]:
    """Messages an event where each is a save, heard by two processes."""
    made = [targets.realtime(kind, layers=redis.layer(layer), shared=True) for _ in range(2)]
    events = 50
    with Load() as load:
        try:
            for target in made:
                target.server.start()
            load.open(
                [(made[n % 2].server.url, 0, made[n % 2].steps(n, 0)) for n in range(subscribers)]
            )
            load.begin()
            before = sent(redis, layer)
            told = load.paced([made[0].server.control], 20, events, save=True)
            messages = sent(redis, layer) - before
        finally:
            for target in made:
                target.server.kill()
    return {
        "server": kind,
        "layer": layer,
        "processes": 2,
        "saves": events,
        "subscribers": subscribers,
        "messages_per_event": messages / events,
        "lost": told["lost"],
        "duplicates": told["duplicates"],
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
                say(f"\n{kind}, {layer} layer, {arguments.subscribers} subscribers")
                one = measure(kind, layer, 1, redis, arguments)
                two = measure(kind, layer, 2, redis, arguments)
                for row in (one, two):
                    row["ratio_to_one_process"] = row["us_per_delivery"] / one["us_per_delivery"]
                    row["throughput_ratio_to_one_process"] = row["per_second"] / one["per_second"]
                    say(
                        f"    {row['processes']} process(es): {row['us_per_delivery']:6.1f} µs CPU "
                        f"per delivery ({row['ratio_to_one_process']:.2f}x), "
                        f"{row['per_second']:.0f}/s "
                        f"({row['throughput_ratio_to_one_process']:.2f}x), "
                        f"{row['messages_per_event']:.2f} Redis messages per event, "
                        f"lost {row['lost']}, duplicates {row['duplicates']}"
                    )
                saved = saves(kind, layer, redis, 100)
                say(
                    f"    real saves, 2 processes: {saved['messages_per_event']:.2f} messages an "
                    f"event, lost {saved['lost']}, twice {saved['duplicates']}"
                )
                rows += [one, two, saved]
    finally:
        redis.kill()
    say(f"\n{os.cpu_count()} cores. written to {results.save('processes', rows).name}")
    return int(any(row["lost"] + row["duplicates"] for row in rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", nargs="+", choices=targets.KINDS, default=["uvicorn"])
    parser.add_argument("--layer", nargs="+", choices=list(SENDING), default=list(SENDING))
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0)
    sys.exit(main(parser.parse_args()))

"""One event to everybody: server CPU µs a delivery, ours and its peers' in one run.

    python -m benchmarks.fanout                          # all
    python -m benchmarks.fanout --server uvicorn --subscribers 1000 --rows realtime raw_asgi

A closed loop: the next event once all have the last. "burst": 50 events at once. Each of our
subscribers has a user, a filter and a permission's mandatory filter of its own, a cursor and a
bounded queue. ~250 bytes a document, no permessage-deflate anywhere. Exits 1 where something was
lost, repeated or misdirected by us.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks import results, targets
from benchmarks.common import say, set_up
from benchmarks.measure import Bench, faults, run

BURST = 50
SIZES = (1000, 3000)
ROWS = (
    *(
        "raw_asgi",
        "raw_asgi burst",
        "realtime",
        "realtime own filters",
        "realtime batch",
        "realtime burst",
    ),
    *(
        "realtime batch burst",
        "realtime save",
        "channels_consumer",
        "channels_consumer redis",
        "dcrf",
    ),
    *("socketio", "socketio burst", "broadcast", "broadcast burst"),
)
LARGE = ("raw_asgi", "realtime", "realtime batch burst", "socketio")
"""Rows at more than 1,000 subscribers: those that do not grow with the square."""


def make(row: str, kind: str, redis: Any) -> Any:
    """The target of a row; None where it cannot be had here."""
    match row:
        case "raw_asgi":
            return targets.raw_asgi(kind)
        case "raw_asgi burst":
            return targets.raw_asgi(kind, "raw ASGI loop, burst", burst=BURST)
        case "realtime":
            return targets.realtime(kind)
        case "realtime own filters":
            # another filter for each, that lets everything through
            name = "realtime, all filters different"
            return targets.realtime(
                kind, name, filters=lambda n: {"status": "s0", "views_gte": -n - 1}
            )
        case "realtime batch":
            return targets.realtime(kind, "realtime, batch", batch=True)
        case "realtime burst":
            return targets.realtime(kind, "realtime, burst", burst=BURST)
        case "realtime batch burst":
            return targets.realtime(kind, "realtime, batch, burst", batch=True, burst=BURST)
        case "realtime save":
            target = targets.realtime(kind, "realtime, real saves")
            target.message = {"save": True}
            return target
        case "channels_consumer":
            return targets.channels_consumer(kind, "Channels consumer, in-memory layer")
        case "channels_consumer redis":
            layers = redis.layer("pubsub")
            name = "Channels consumer, Redis pub/sub layer"
            return targets.channels_consumer(kind, name, layers=layers)
        case "dcrf":
            return targets.dcrf(kind, "djangochannelsrestframework, real saves")
        case "socketio":
            return targets.socketio()
        case "socketio burst":
            return targets.socketio("Socket.IO (Node), burst", burst=BURST)
        case "broadcast":
            return targets.broadcast()
        case "broadcast burst":
            return targets.broadcast("websockets.broadcast, burst", burst=BURST)
    raise ValueError(row)


def table(rows: list[dict[str, Any]]) -> None:
    """Print rows with their ratio to the raw loop and to the plain consumer."""
    by = {row["name"]: row.get("us_per_delivery") for row in rows}
    floor, peer = by.get("raw ASGI loop"), by.get("Channels consumer, in-memory layer")
    say(f"    {'':46} {'µs/delivery':>12} {'x raw':>7} {'plain is':>9} {'p99 ms':>8}  faults")
    for row in rows:
        if "refused" in row:
            say(f"    {row['name']:46} not supported: {row['refused'][:70]}")
            continue
        us = row["us_per_delivery"]
        row["ratio_to_raw_asgi"] = us / floor if floor else None
        row["channels_consumer_ratio"] = peer / us if peer else None
        raw = f"{us / floor:6.2f}x" if floor else ""
        plain = f"{peer / us:8.1f}x" if peer else ""
        bad = row["lost"] + row["duplicates"] + row["misdirected"]
        say(f"    {row['name']:46} {us:12.1f} {raw:>7} {plain:>9} {row['p99_ms']:8.1f}  {bad}")


def main(arguments: argparse.Namespace) -> int:
    from tests.support.servers import Redis

    set_up("sqlite", arguments.settings)
    redis = Redis()
    redis.start()
    everything: list[dict[str, Any]] = []
    try:
        for kind in arguments.server:
            for size in arguments.subscribers:
                chosen = arguments.rows or (ROWS if size <= 1000 else LARGE)
                made = [make(row, kind, redis) for row in chosen]
                say(f"\n{kind}, {size} subscribers, unfiltered")
                benches = [Bench(target, size) for target in made if target is not None]
                rows = run(benches, arguments.rounds, arguments.seconds)
                table(rows)
                everything += [{"server": kind, **row} for row in rows]
    finally:
        redis.kill()
    say(f"\nwritten to {results.save('fanout', everything, burst=BURST).name}")
    return int(bool(faults([row for row in everything if row["name"].startswith("realtime")])))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", nargs="+", choices=targets.KINDS, default=targets.KINDS)
    parser.add_argument("--subscribers", nargs="+", type=int, default=SIZES)
    parser.add_argument("--rows", nargs="+", choices=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a row in a round")
    chosen = parser.parse_args()
    chosen.settings = "benchmarks.site.settings"
    sys.exit(main(chosen))

"""One event to all subscribers: server CPU µs per delivery, compared with peers in one run.

    python -m benchmarks.fanout                          # all
    python -m benchmarks.fanout --server uvicorn --subscribers 1000 --rows realtime raw_asgi

A closed loop: the next event is sent when all subscribers have received the last one. "burst" rows
send 50 events at once. Each realtime subscriber has its own user, filter, mandatory filter of the
permission, cursor and bounded queue. Documents have about 250 bytes; nothing is compressed. Exits
with 1 if a realtime delivery was lost, duplicated or misdirected.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from benchmarks import results, targets
from benchmarks.common import print_line, set_up
from benchmarks.measure import Bench, count_faults, run

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
"""Rows at more than 1,000 subscribers: those whose cost does not grow quadratically."""


def make_target(row: str, kind: str, redis: Any) -> Any:
    """Return the target of a row, or None if it is not available here."""
    match row:
        case "raw_asgi":
            return targets.raw_asgi(kind)
        case "raw_asgi burst":
            return targets.raw_asgi(kind, "raw ASGI loop, burst", burst=BURST)
        case "realtime":
            return targets.realtime(kind)
        case "realtime own filters":
            # a different filter for each subscriber; all of them match
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


def print_table(rows: list[dict[str, Any]]) -> None:
    """Print rows with their ratios to the raw ASGI loop and to the Channels consumer."""
    by = {row["name"]: row.get("us_per_delivery") for row in rows}
    floor, peer = by.get("raw ASGI loop"), by.get("Channels consumer, in-memory layer")
    print_line(
        f"    {'':46} {'µs/delivery':>12} {'x raw':>7} {'channels':>9} {'p99 ms':>8}  faults"
    )
    for row in rows:
        if "refused" in row:
            print_line(f"    {row['name']:46} not supported: {row['refused'][:70]}")
            continue
        us = row["us_per_delivery"]
        row["ratio_to_raw_asgi"] = us / floor if floor else None
        row["channels_consumer_ratio"] = peer / us if peer else None
        raw = f"{us / floor:6.2f}x" if floor else ""
        channels = f"{peer / us:8.1f}x" if peer else ""
        bad = row["lost"] + row["duplicates"] + row["misdirected"]
        print_line(
            f"    {row['name']:46} {us:12.1f} {raw:>7} {channels:>9} {row['p99_ms']:8.1f}  {bad}"
        )


def main(arguments: argparse.Namespace) -> int:
    from tests.support.servers import Redis

    set_up("sqlite", "benchmarks.site.settings")
    redis = Redis()
    redis.start()
    all_rows: list[dict[str, Any]] = []
    try:
        for kind in arguments.server:
            for size in arguments.subscribers:
                names = arguments.rows or (ROWS if size <= 1000 else LARGE)
                candidates = [make_target(name, kind, redis) for name in names]
                print_line(f"\n{kind}, {size} subscribers, unfiltered")
                benches = [Bench(target, size) for target in candidates if target is not None]
                rows = run(benches, arguments.rounds, arguments.seconds)
                print_table(rows)
                all_rows += [{"server": kind, **row} for row in rows]
    finally:
        redis.kill()
    print_line(f"\nwritten to {results.save('fanout', all_rows, burst=BURST).name}")
    return int(bool(count_faults([row for row in all_rows if row["name"].startswith("realtime")])))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", nargs="+", choices=targets.KINDS, default=targets.KINDS)
    parser.add_argument("--subscribers", nargs="+", type=int, default=SIZES)
    parser.add_argument("--rows", nargs="+", choices=ROWS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a row in a round")
    sys.exit(main(parser.parse_args()))

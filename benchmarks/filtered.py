"""One event to ten matching subscribers: server CPU µs per event, by the kind of filter.

    python -m benchmarks.filtered                          # 1,000 and 10,000 subscribers
    python -m benchmarks.filtered --server uvicorn --subscribers 1000 --shapes equality range

Without saves: the trigger hands a change to the hub as the tailer does, and to the peers' layer as
a save would. A closed loop. Each event matches ten subscribers, whatever their number: the growth
from 1,000 to 10,000 subscribers is the cost of those that do not match. Exits with 1 if a realtime
delivery was lost, duplicated or misdirected.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import results, targets
from benchmarks.common import print_line, set_up
from benchmarks.load import Step
from benchmarks.measure import Bench, count_faults, measure_in_turn, start_bench

MATCHES = 10
SIZES = (1000, 10_000)
FIELDS = ["title", "body", "status", "views", "owner", "project", "created_at"]
COLLECTIONS = {
    name: {
        "model": "app.Post",
        "fields": FIELDS,
        "permission": f"benchmarks.site.permissions.{permission}",
    }
    for name, permission in (("posts", "OfProject"), ("owned", "Own"))
}


def equality(klass: int) -> list[Step]:
    return targets.subscribe({"status": f"s{klass}"})


def interval(klass: int) -> list[Step]:
    return targets.subscribe({"views_gte": klass * 10, "views_lt": klass * 10 + 10})


def among(klass: int) -> list[Step]:
    return targets.subscribe({"status_in": [f"s{klass}", f"t{klass}", "never"]})


def contains(klass: int) -> list[Step]:
    return targets.subscribe({"title_contains": f"CLASS {klass:05}"})


def owner(klass: int) -> list[Step]:
    return targets.subscribe({}, "owned")


SHAPES: dict[str, Callable[[int], list[Step]]] = {
    "equality": equality,
    "range": interval,
    "in": among,
    "contains": contains,
    "owner": owner,
}
TITLES = {
    "equality": "realtime, equality",
    "range": "realtime, range (gte and lt)",
    "in": "realtime, in",
    "contains": "realtime, contains",
    "owner": "realtime, mandatory owner filter",
}


def peers(kind: str, size: int, classes: int) -> list[Any]:
    """Return the targets to compare with: the raw ASGI loop first, others unless too slow."""
    floor = targets.raw_asgi(kind, "raw ASGI loop over a dictionary of lists")
    if size > 1000:
        return [floor]
    everyone = "Channels consumer, each connection filters"
    group = "Channels consumer, one group per key"
    return [
        floor,
        targets.channels_consumer(kind, everyone, classes=classes),
        targets.channels_consumer(kind, group, classes=classes, grouped=True),
        targets.dcrf(
            kind, "djangochannelsrestframework, one group per key", grouped=True, save=False
        ),
        targets.socketio("Socket.IO (Node), its rooms"),
        targets.broadcast("websockets.broadcast, one set per key"),
    ]


def measure(kind: str, size: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure all rows of a server with a number of subscribers."""
    classes = size // MATCHES
    peer_benches = [Bench(t, size, classes) for t in peers(kind, size, classes) if t is not None]
    target = targets.realtime(
        kind,
        filters=lambda n: {"status": f"s{n % classes}"},
        user=lambda n: n % classes,
        settings={"COLLECTIONS": COLLECTIONS},
    )
    realtime = Bench(target, size, classes)
    rows = []
    try:
        for bench in [*peer_benches, realtime]:
            start_bench(bench)
        trigger = peer_benches[0].trigger_alone(arguments.seconds)
        print_line(f"    the trigger alone: {trigger:.0f} µs per event, part of every figure below")
        measure_in_turn(peer_benches, arguments.rounds, arguments.seconds)
        for shape in arguments.shapes:
            realtime.resubscribe(TITLES[shape], SHAPES[shape], **_message(shape))
            measure_in_turn([realtime], arguments.rounds, arguments.seconds)
            realtime.finish()
            rows.append({"shape": shape, **realtime.row()})
    finally:
        for bench in [*peer_benches, realtime]:
            bench.stop()
    return [{"trigger_us": trigger, **row} for row in (*(b.row() for b in peer_benches), *rows)]


def _message(shape: str) -> dict[str, str]:
    return {"collection": "owned" if shape == "owner" else "posts"}


def print_table(rows: list[dict[str, Any]], previous: dict[str, float]) -> None:
    """Print rows. ``previous`` has the µs per event by name with fewer subscribers."""
    channels = next(
        (r.get("us_per_event") for r in rows if "each connection filters" in r["name"]), None
    )
    print_line(f"    {'':46} {'µs/event':>10} {'channels':>9} {'growth':>8} {'p99 ms':>8}  faults")
    for row in rows:
        if "refused" in row:
            print_line(f"    {row['name']:46} not supported: {row['refused'][:70]}")
            continue
        us, before = row["us_per_event"], previous.get(row["name"])
        row["channels_consumer_ratio"] = channels / us if channels else None
        row["ratio_to_fewer_subscribers"] = us / before if before else None
        previous[row["name"]] = us
        peer = f"{channels / us:8.0f}x" if channels else ""
        grown = f"{us / before:7.2f}x" if before else ""
        bad = row["lost"] + row["duplicates"] + row["misdirected"]
        print_line(
            f"    {row['name']:46} {us:10.0f} {peer:>9} {grown:>8} {row['p99_ms']:8.1f}  {bad}"
        )


def main(arguments: argparse.Namespace) -> int:
    set_up("sqlite", "benchmarks.site.settings")
    all_rows: list[dict[str, Any]] = []
    for kind in arguments.server:
        previous: dict[str, float] = {}
        for size in sorted(arguments.subscribers):
            print_line(f"\n{kind}, {size} subscribers, {MATCHES} of them match")
            rows = measure(kind, size, arguments)
            print_table(rows, previous)
            all_rows += [{"server": kind, **row} for row in rows]
    print_line(f"\nwritten to {results.save('filtered', all_rows, matches=MATCHES).name}")
    return int(bool(count_faults([row for row in all_rows if row["name"].startswith("realtime")])))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", nargs="+", choices=targets.KINDS, default=targets.KINDS)
    parser.add_argument("--subscribers", nargs="+", type=int, default=SIZES)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a row in a round")
    sys.exit(main(parser.parse_args()))

"""One event to the ten that asked for it: server CPU µs an event, by the filter's shape.

    python -m benchmarks.filtered                          # 1,000 and 10,000 subscribers
    python -m benchmarks.filtered --server uvicorn --subscribers 1000 --shapes equality range

Without the save: the trigger hands a change to the hub as the feed does, and to the peers' layer
as a save would. A closed loop; each event matches ten subscribers, whatever their number, so what
grows from 1,000 to 10,000 is what it costs not to match. Exits 1 where something was lost,
repeated or misdirected by us.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from benchmarks import results, targets
from benchmarks.common import say, set_up
from benchmarks.load import Step
from benchmarks.measure import Bench, faults, in_turn, up

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
    """The raw loop first; the others where their cost does not forbid it."""
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
    """All rows of a server and a number of subscribers."""
    classes = size // MATCHES
    others = [Bench(t, size, classes) for t in peers(kind, size, classes) if t is not None]
    target = targets.realtime(
        kind,
        filters=lambda n: {"status": f"s{n % classes}"},
        user=lambda n: n % classes,
        settings={"COLLECTIONS": COLLECTIONS},
    )
    own = Bench(target, size, classes)
    rows = []
    try:
        for bench in [*others, own]:
            up(bench)
        trigger = others[0].trigger_alone(arguments.seconds)
        say(f"    the trigger alone: {trigger:.0f} µs an event, in every figure below")
        in_turn(others, arguments.rounds, arguments.seconds)
        for shape in arguments.shapes:
            own.again(TITLES[shape], SHAPES[shape], **_message(shape))
            in_turn([own], arguments.rounds, arguments.seconds)
            own.finish()
            rows.append({"shape": shape, **own.row()})
    finally:
        for bench in [*others, own]:
            bench.stop()
    return [{"trigger_us": trigger, **row} for row in (*(b.row() for b in others), *rows)]


def _message(shape: str) -> dict[str, str]:
    return {"collection": "owned" if shape == "owner" else "posts"}


def table(rows: list[dict[str, Any]], small: dict[str, float]) -> None:
    """Print rows; ``small`` holds µs an event by name with fewer subscribers."""
    plain = next(
        (r.get("us_per_event") for r in rows if "each connection filters" in r["name"]), None
    )
    say(f"    {'':46} {'µs/event':>10} {'plain is':>9} {'x small':>8} {'p99 ms':>8}  faults")
    for row in rows:
        if "refused" in row:
            say(f"    {row['name']:46} not supported: {row['refused'][:70]}")
            continue
        us, before = row["us_per_event"], small.get(row["name"])
        row["channels_consumer_ratio"] = plain / us if plain else None
        row["ratio_to_fewer_subscribers"] = us / before if before else None
        small[row["name"]] = us
        peer = f"{plain / us:8.0f}x" if plain else ""
        grown = f"{us / before:7.2f}x" if before else ""
        bad = row["lost"] + row["duplicates"] + row["misdirected"]
        say(f"    {row['name']:46} {us:10.0f} {peer:>9} {grown:>8} {row['p99_ms']:8.1f}  {bad}")


def main(arguments: argparse.Namespace) -> int:
    set_up("sqlite", "benchmarks.site.settings")
    everything: list[dict[str, Any]] = []
    for kind in arguments.server:
        small: dict[str, float] = {}
        for size in sorted(arguments.subscribers):
            say(f"\n{kind}, {size} subscribers, {MATCHES} of them match")
            rows = measure(kind, size, arguments)
            table(rows, small)
            everything += [{"server": kind, **row} for row in rows]
    say(f"\nwritten to {results.save('filtered', everything, matches=MATCHES).name}")
    return int(bool(faults([row for row in everything if row["name"].startswith("realtime")])))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", nargs="+", choices=targets.KINDS, default=targets.KINDS)
    parser.add_argument("--subscribers", nargs="+", type=int, default=SIZES)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a row in a round")
    sys.exit(main(parser.parse_args()))

"""The cost per event of the worst filters of one connection, in milliseconds of CPU time.

    python -m benchmarks.filter_costs
    python -m benchmarks.filter_costs --connections 20 --limit 0     # without the limit of costs

Each population is as large as the default limits allow: 100 subscriptions with 16 conditions of
100 values, 1 MiB of requests, and the limit ``filter_cost``. Each event is the row that costs most.
Without sockets: measures the search for the subscriptions that must get an event. Exits with 1 if
an event of a single connection takes more than 10 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from benchmarks.common import print_line  # noqa: E402
from django_cocobase_realtime.declarations.serialization import RowCodec  # noqa: E402
from django_cocobase_realtime.delivery.query import AuthorizedQuery  # noqa: E402
from django_cocobase_realtime.delivery.subscription import Subscription, SubscriptionRequest  # noqa: E402
from django_cocobase_realtime.delivery.table import SubscriptionTable  # noqa: E402
from django_cocobase_realtime.events import Change, now  # noqa: E402
from django_cocobase_realtime.filters import FilterLimits, InvalidFilter, estimate_cost, parse  # noqa: E402
from django_cocobase_realtime.filters.orm import field_spec  # noqa: E402
from django_cocobase_realtime.options import Limits  # noqa: E402
from django_cocobase_realtime.protocol.subscription_commands import MAX_REQUEST_BYTES  # noqa: E402
from django_cocobase_realtime.transport.connection import Connection  # noqa: E402
from tests.app.models import Everything  # noqa: E402

MAX_MS = 10
CODEC = RowCodec(Everything)
SCHEMA = {name: field_spec(field) for name, field in CODEC.fields.items()}
LIMITS = Limits()
MODULUS = 2**61 - 1  # by which Python hashes numbers
TEXT = ("the quick brown fox jumps over the lazy dog. " * 400)[:16_384]
LONG = "a" * 16_384
DEEP: Any = 1
for _ in range(16):
    DEEP = {"a": DEEP}

# a filter, given the number of the connection and of its subscription
Population = Callable[[int], dict[str, Any]]
ROW = {"id": 1, "char": "a", "text": TEXT, "integer": 5, "json": {"a": 1, "x": DEEP}}


def disjunction(name: str, value: Callable[[int], Any], lists: int = 16) -> Population:
    """Return filters that are one OR group of lists with 100 values."""
    return lambda n: {
        "$or": [
            {name: {"in": [value((n * lists + part) * 100 + v) for v in range(100)]}}
            for part in range(lists)
        ]
    }


def negations(conditions: Callable[[int], dict[str, Any]]) -> Population:
    """Return filters with 16 negated conditions, all of which must be tested."""
    return lambda n: {"$not": {"$or": [conditions(n * 16 + part) for part in range(16)]}}


POPULATIONS: dict[str, tuple[Population, dict[str, Any]]] = {
    "equalities": (lambda n: {"char": f"v{n}"}, ROW),
    "ranges": (lambda n: {"integer_gte": n, "integer_lt": n + 10}, ROW),
    "integers of one hash": (disjunction("big", lambda n: str(n * MODULUS)), ROW | {"big": 0}),
    "decimals of one hash": (
        disjunction("decimal", lambda n: str(n * MODULUS)),
        ROW | {"decimal": "0"},
    ),
    "UUIDs of one hash": (
        disjunction("uuid", lambda n: f"{n * MODULUS:032x}"),
        ROW | {"uuid": "0" * 32},
    ),
    "floats of one hash": (
        disjunction("float", lambda n: float(n % 50) * 2.0 ** (61 * (n // 50 % 16))),
        ROW | {"float": 1.0},
    ),
    "JSON numbers of one hash": (
        disjunction("json.a", lambda n: float(n % 50) * 2.0 ** (61 * (n // 50 % 16))),
        ROW,
    ),
    "16 of ne": (negations(lambda n: {"integer": {"ne": n}}), ROW),
    "16 of notin": (lambda n: {f"integer__or__{'integer__or__' * 14}integer_notin": [n, -n]}, ROW),
    "16 deep paths": (
        negations(lambda n: {f"json.x{'.a' * 14}.{n}": {"ne": n}}),
        ROW,
    ),
    "16 indexed deep paths": (
        lambda n: {"$or": [{f"json.x{'.a' * 14}.k{n * 16 + p}": p} for p in range(16)]},
        ROW,
    ),
    "16 of contains": (negations(lambda n: {"text": {"contains": f"lazy dog. th{n}"}}), ROW),
    "contains, all candidates": (
        lambda n: {"text_contains": f"{TEXT[n : n + 60]}{n}", "char": "a"},
        ROW,
    ),
    "contains, slowest search": (
        negations(lambda n: {"text": {"contains": "a" * 15 + "b" + "a" * (15 + n)}}),
        ROW | {"text": LONG},
    ),
    "contains, one per subscription": (lambda n: {"text_contains": f"needle {n}"}, ROW),
    "contains, letters of all alphabets": (
        lambda n: {"text_contains": chr(0x400 + n) * 5},
        ROW | {"text": "Жы" * 8192},
    ),
    "contains, 3 characters": (
        lambda n: {"$or": [{"text_contains": f"{n * 16 + p:03x}"} for p in range(16)]},
        ROW,
    ),
    "16 of endswith": (negations(lambda n: {"text": {"endswith": f"dog{n}"}}), ROW),
    "contains in an array": (
        negations(lambda n: {"json": {"contains": n}}),
        ROW | {"json": [-n for n in range(1, 20_000)]},
    ),
    "numbers of one hash in an array": (
        negations(lambda n: {"json": {"contains": n}}),
        ROW | {"json": [n * MODULUS for n in range(1, 5_000)]},
    ),
}


def requests(
    population: Population, connection: int, limit: float, transitions: bool
) -> Iterator[Any]:
    """Yield the parsed filters that one connection may have."""
    limits = FilterLimits(LIMITS.filter_clauses, LIMITS.filter_depth, LIMITS.filter_values)
    total_bytes, total_cost = 0, 0.0
    for number in range(LIMITS.subscriptions):
        given = population(connection * LIMITS.subscriptions + number)
        total_bytes += len(json.dumps(given, separators=(",", ":")))
        try:
            filter = parse(given, SCHEMA, limits=limits)
        except InvalidFilter:
            continue
        total_cost += estimate_cost(filter, SCHEMA) * (2 if transitions else 1)
        if total_bytes > MAX_REQUEST_BYTES or 0 < limit < total_cost:
            return
        yield filter


def measure(
    population: Population, image: dict[str, Any], connections: int, limit: float, transitions: bool
) -> tuple[int, float]:
    """Return the number of subscriptions, and the seconds that an event takes."""
    table = SubscriptionTable(SCHEMA)
    count = 0
    for number in range(connections):
        writer: Any = SimpleNamespace()
        connection = Connection(str(number), writer, lambda code, retry_after_ms=None: None)
        for filter in requests(population, number, limit, transitions):
            request = SubscriptionRequest(str(count), "everything", transitions=transitions)
            table.add(Subscription(connection, request, AuthorizedQuery(filter, ())))
            count += 1
    after = json.loads(json.dumps(image))
    change = Change("0", "e", "updated", "1", "0", now(), after=after, before=dict(after))
    table.find_recipients(change)  # compiles what is compiled at first use
    best = float("inf")
    for _ in islice(iter(int, 1), 5):
        started = time.thread_time()
        table.find_recipients(change)
        best = min(best, time.thread_time() - started)
    return count, best


def main(arguments: argparse.Namespace) -> int:
    worst = 0.0
    print_line(f"{'':40} {'subs':>6} {'ms/event':>9} {'subs':>6} {'with transitions':>17}")
    for name, (population, image) in POPULATIONS.items():
        if arguments.only and arguments.only not in name:
            continue
        settings = (population, image, arguments.connections, arguments.limit)
        count, seconds = measure(*settings, False)
        fewer, twice = measure(*settings, True)
        worst = max(worst, seconds * 1e3, twice * 1e3)
        print_line(f"{name:40} {count:6} {seconds * 1e3:9.2f} {fewer:6} {twice * 1e3:17.2f}")
    print_line(f"worst: {worst:.1f} ms")
    return int(worst > MAX_MS and arguments.connections == 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument(
        "--limit",
        type=float,
        default=LIMITS.filter_cost,
        help="highest cost of a connection's filters; 0 for no limit",
    )
    parser.add_argument("--only", help="part of a population's name")
    sys.exit(main(parser.parse_args()))

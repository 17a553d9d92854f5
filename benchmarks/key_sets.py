"""An event at many filters with key sets, beside one at as many filters with an equality.

    python -m benchmarks.key_sets
    python -m benchmarks.key_sets --filters 1000 --keys 10

Without sockets and databases: measures the search for the filters that match a row, the change of a
set that all filters share, and the memory of sets. Rounds of both kinds alternate, so that noise
affects both. Exits with 1 if an event with one hit takes more than 1.5 times as long, if a set
takes more memory than 0.6 KiB and 100 bytes for each key, or if a key that a shared set gains takes
more than a millisecond.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.common import median, print_line
from django_cocobase_realtime.filters import (
    FieldSpec,
    Filter,
    FilterIndex,
    KeySet,
    Kind,
    Row,
    keys_of,
    parse,
)
from django_cocobase_realtime.filters.index.key_sets import KeySetIndex
from django_cocobase_realtime.filters.nodes import InKeySet, all_of

MAX_RATIO = 1.5
MAX_SET_BYTES, MAX_KEY_BYTES = 614, 100
MAX_GAIN_MS = 1.0
ROUNDS = 30
EVENTS = 300  # events of a round
SCHEMA = {name: FieldSpec(name, Kind.INTEGER) for name in ("project", "owner", "status")}
RNG = random.Random(1)

Measured = tuple[FilterIndex[int], Callable[[], dict[str, Any]]]


def key_set(keys: Iterable[int]) -> KeySet:
    return KeySet("projects", Kind.INTEGER, keys_of(Kind.INTEGER, keys))


def with_set(keys: KeySet, **conditions: int) -> Filter:
    condition = InKeySet(("project",), Kind.INTEGER, keys)
    return Filter(all_of([condition, parse(conditions, SCHEMA).root]))


def index_of(filters: Iterable[Filter]) -> FilterIndex[int]:
    index: FilterIndex[int] = FilterIndex()
    for number, filter in enumerate(filters):
        index.add(number, filter)
    return index


def equality(filters: int, hits: int) -> Measured:
    """Return an index of different lists of two values, and rows that match some of them."""
    projects = filters // hits
    index = index_of(
        parse({"project__in": [n % projects, n + filters]}, SCHEMA) for n in range(filters)
    )
    return index, lambda: {"project": RNG.randrange(projects), "status": 1}


def own_sets(filters: int, keys: int, hits: int, **conditions: int) -> Measured:
    """Return an index of filters with a set of their own, and rows that match some of them."""
    projects = filters * keys // hits
    index = index_of(
        with_set(key_set(RNG.sample(range(projects), keys)), **conditions) for _ in range(filters)
    )
    return index, lambda: {"project": RNG.randrange(projects), "status": 1}


def run_round(measured: Measured) -> tuple[float, float]:
    """Return the µs and the hits of an event."""
    index, make_row = measured
    images = [make_row() for _ in range(EVENTS)]
    began = time.thread_time()
    hits = sum(len(index.matching(Row(image, SCHEMA))) for image in images)
    return (time.thread_time() - began) * 1e6 / EVENTS, hits / EVENTS


def measure_in_turn(measured: dict[str, Measured]) -> dict[str, float]:
    """Return the median µs of an event by name."""
    rounds: dict[str, list[tuple[float, float]]] = {name: [] for name in measured}
    for _ in range(ROUNDS):
        for name, item in measured.items():
            rounds[name].append(run_round(item))
    for name, results in rounds.items():
        us, hits = median(us for us, _ in results), sum(hits for _, hits in results) / ROUNDS
        print_line(f"{name:52} {us:8.2f} µs an event, {hits:5.2f} hits")
    return {name: median(us for us, _ in results) for name, results in rounds.items()}


def gain_ms(filters: int) -> float:
    """Return the milliseconds in which a set of 10,000 keys gains one, with all filters on it."""
    shared = key_set(range(10_000))
    index = index_of(with_set(shared, owner=n) for n in range(filters))
    under_set = index_of(with_set(shared, status=n % 2) for n in range(filters))
    times = []
    for key in range(10_000, 10_100):
        began = time.thread_time()
        shared.add(str(key))
        times.append((time.thread_time() - began) * 1e3)
    row = Row({"project": 10_050, "owner": 5, "status": 1}, SCHEMA)
    assert index.matching(row) == [5]
    assert under_set.matching(row)
    return median(times)


def allocated(make: Callable[[], Any]) -> int:
    """Return the bytes that the result of a function takes."""
    gc.collect()
    tracemalloc.start()
    result = make()
    gc.collect()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    del result
    return size


def memory(filters: int, keys: int) -> tuple[float, float]:
    """Return the bytes of a set and of a key of it, with its place in the index."""

    def build(number: int) -> Any:
        # each project is in about ten sets
        projects = max(number, filters * number // 10, 1)
        names = keys_of(Kind.INTEGER, range(projects))
        index: KeySetIndex[int] = KeySetIndex()
        for entry in range(filters):
            index.add(entry, KeySet("projects", Kind.INTEGER, RNG.sample(names, number)))
        return index

    few, many = (allocated(lambda: build(number)) for number in (1, keys))  # noqa: B023
    per_key = (many - few) / filters / (keys - 1)
    return few / filters - per_key, per_key


def main(arguments: argparse.Namespace) -> int:
    filters, keys = arguments.filters, arguments.keys
    ratio = 0.0
    for hits in (1, 10):
        plain, sets = f"{filters:,} equalities", f"{filters:,} sets of {keys} keys"
        us = measure_in_turn(
            {
                plain: equality(filters, hits),
                sets: own_sets(filters, keys, hits),
                f"{sets}, and a value of all": own_sets(filters, keys, hits, status=1),
            }
        )
        print_line(f"{'ratio to equality':52} {us[sets] / us[plain]:8.2f}")
        ratio = ratio or us[sets] / us[plain]  # with one hit
    gained = gain_ms(filters)
    print_line(f"{f'a key gained by a set of {filters:,} filters':52} {gained:8.4f} ms")
    of_set, of_key = memory(filters, keys)
    print_line(f"{'memory with the place in the index':52} {of_set:8.0f} bytes a set")
    print_line(f"{'':52} {of_key:8.0f} bytes a key")
    return int(
        ratio > MAX_RATIO
        or gained > MAX_GAIN_MS
        or of_set > MAX_SET_BYTES
        or of_key > MAX_KEY_BYTES
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--filters", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=50)
    sys.exit(main(parser.parse_args()))

"""The cost of writes to a watched model, beside the same writes to an unwatched model.

    python -m benchmarks.save_cost            # SQLite and PostgreSQL, one after the other

Medians over interleaved rounds in one process, so that noise affects all. Measures single writes in
autocommit mode as ratios, and bulk writes also as µs added per row, without subscribers. The log is
written by signals, or by triggers of the database.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import results
from benchmarks.common import median, print_line, run_for_each_database, set_up

ROUNDS = 60
SINGLE = 10  # single writes per round
BULK = 1000  # rows of a bulk write

# highest ratio to the unwatched write, by mode, database and kind of write
TARGET_RATIOS = {
    "signals": {
        "sqlite": {
            "insert": 2.3,
            "save": 2.8,
            "save(update_fields)": 3.9,
            "update() of one row": 4.0,
        },
        "postgres": {
            "insert": 2.7,
            "save": 3.0,
            "save(update_fields)": 4.2,
            "update() of one row": 4.0,
        },
        "postgres 18": {"save": 2.5},
    },
    "triggers": {
        "sqlite": {
            "insert": 1.2,
            "save": 1.25,
            "save(update_fields)": 1.4,
            "update() of one row": 1.5,
        },
        "postgres": {
            "insert": 1.25,
            "save": 1.4,
            "save(update_fields)": 1.6,
            "update() of one row": 1.5,
        },
    },
}
# highest number of µs added per row, by mode and kind of write
TARGET_MICROSECONDS = {
    "signals": {"delete, per row": 45.0, "bulk update, per row": 110.0},
    "triggers": {"bulk update, per row": 16.0},
}


@dataclass
class Work:
    """A kind of write to measure."""

    run: Callable[[], None]
    # writes, or rows, of one call of ``run``
    count: int
    # called before each ``run``, and not measured
    prepare: Callable[[], object] = lambda: None


def measure(
    watch: Callable[[str], None], warm_up: Callable[[], None], work: Work, modes: list[str]
) -> list[float]:
    """Return the median seconds of a write, or of a row, in each mode."""
    times: dict[str, list[float]] = {mode: [] for mode in modes}
    for round_number in range(ROUNDS + 1):
        for mode in modes:
            watch("unwatched")
            work.prepare()
            watch(mode)
            warm_up()  # statements are compiled for the first write after the setting has changed
            began = time.perf_counter()
            work.run()
            took = time.perf_counter() - began
            if round_number:  # the first round warms up
                times[mode].append(took / work.count)
    return [median(times[mode]) for mode in modes]


def target_of(mode: str, version: str, name: str) -> str:
    """Return the target of a kind of write as text; empty if there is none."""
    by_database = TARGET_RATIOS[mode]
    exact = by_database.get(version, {})
    ratio = exact.get(name, by_database[version.partition(" ")[0]].get(name))
    if ratio is not None:
        return f"{ratio:.2f}×"
    added = TARGET_MICROSECONDS[mode].get(name)
    return "" if added is None else f"{added:.0f} µs added"


def main(database: str) -> None:
    set_up(database)
    from django.core.management import call_command
    from django.db import connection, transaction
    from django.db.models import F
    from django.test import override_settings

    from tests.app.models import Item

    modes = ["unwatched", "signals", "triggers"]
    current: list[override_settings] = []

    def watch(mode: str) -> None:
        while current:
            if "triggers" in str(current[0].options):
                call_command("realtime_triggers", "remove", stdout=open(os.devnull, "w"))
            current.pop().disable()
        collections = (
            {} if mode == "unwatched" else {"items": {"model": "app.Item", "capture": mode}}
        )
        override = override_settings(COCOBASE_REALTIME={"COLLECTIONS": collections})
        override.enable()
        current.append(override)
        if mode == "triggers":
            call_command("realtime_triggers", "install", stdout=open(os.devnull, "w"))

    count = 0

    def item() -> Item:
        nonlocal count
        count += 1
        return Item(name=f"{time.time_ns()}-{count}")

    items = [item() for _ in range(100)]
    Item.objects.bulk_create(items)

    def insert() -> None:
        for _ in range(SINGLE):
            item().save()

    def save() -> None:
        for saved in items[:SINGLE]:
            saved.size += 1
            saved.save()

    def save_field() -> None:
        for saved in items[:SINGLE]:
            saved.size += 1
            saved.save(update_fields=["size"])

    def update_one() -> None:
        for saved in items[:SINGLE]:
            saved.size += 1
            Item.objects.filter(pk=saved.pk).update(size=saved.size)

    def save_hundred() -> None:
        with transaction.atomic():
            for saved in items:
                saved.size += 1
                saved.save()

    def bulk_create() -> None:
        Item.objects.bulk_create([item() for _ in range(BULK)])

    def bulk_rows() -> None:
        rows.all().delete()
        bulk = [item() for _ in range(BULK)]
        for row in bulk:
            row.size = -1
        Item.objects.bulk_create(bulk)

    rows = Item.objects.filter(size__lt=0)

    def update_rows() -> None:
        rows.update(size=F("size") - 1)

    def delete_rows() -> None:
        rows.delete()

    def warm_up() -> None:
        one = item()
        one.save()
        one.save()
        one.save(update_fields=["size"])
        Item.objects.filter(pk=one.pk).update(size=1)
        Item.objects.filter(name=one.name).update(size=2)
        one.delete()

    works = {
        "insert": Work(insert, SINGLE),
        "save": Work(save, SINGLE),
        "save(update_fields)": Work(save_field, SINGLE),
        "update() of one row": Work(update_one, SINGLE),
        "save, 100 in a transaction": Work(save_hundred, 100),
        f"bulk_create of {BULK}, per row": Work(bulk_create, BULK),
        "bulk update, per row": Work(update_rows, BULK, bulk_rows),
        "delete, per row": Work(delete_rows, BULK, bulk_rows),
    }
    version = database
    if database == "postgres":
        version = f"postgres {connection.pg_version // 10000}"  # type: ignore[attr-defined]
    print_line(f"\n{version}: median of {ROUNDS} rounds, ratio to the unwatched write")
    measured = []
    for name, work in works.items():
        unwatched, *others = measure(watch, warm_up, work, modes)
        row = {"database": version, "name": name, "unwatched_us": unwatched * 1e6}
        print_line(f"  {name:30} unwatched {unwatched * 1e6:7.0f} us")
        for mode, seconds in zip(modes[1:], others, strict=True):
            row[mode] = seconds / unwatched
            row[f"{mode}_added_us"] = (seconds - unwatched) * 1e6
            row[f"{mode}_target"] = target = target_of(mode, version, name)
            print_line(
                f"    {mode:10} {row[mode]:5.2f}x  added {row[f'{mode}_added_us']:7.0f} us"
                + (f"  (target {target})" if target else "")
            )
        measured.append(row)
    print_line(json.dumps(measured))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"])
    chosen = parser.parse_args().database
    os.environ["REALTIME_TEST_SETTINGS"] = json.dumps({"COLLECTIONS": {}})
    if chosen:
        main(chosen)
    else:
        results.save("save_cost", run_for_each_database("save_cost"), rounds=ROUNDS)

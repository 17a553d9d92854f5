"""The cost of a save of a watched model, relative to the same save of an unwatched model.

    python -m benchmarks.save_cost            # SQLite and PostgreSQL, one after the other

Ratios of medians over interleaved rounds in one process, so that noise affects both. Measures
single saves in autocommit mode, and saves and bulk writes in one transaction, without subscribers.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable

from benchmarks import results
from benchmarks.common import median, print_line, run_for_each_database, set_up

ROUNDS = 60


def measure(
    watch: Callable[[str], None], work: Callable[[], None], modes: list[str]
) -> list[float]:
    """Return the median seconds of the work in each mode."""
    times: dict[str, list[float]] = {mode: [] for mode in modes}
    for mode in modes:
        watch(mode)
        work()
    for _ in range(ROUNDS):
        for mode in modes:
            watch(mode)
            began = time.perf_counter()
            work()
            times[mode].append(time.perf_counter() - began)
    return [median(times[mode]) for mode in modes]


def main(database: str) -> None:
    set_up(database)
    from django.core.management import call_command
    from django.db import transaction
    from django.test import override_settings

    from tests.app.models import Item

    modes = ["unwatched", "signals"] + (["triggers"] if database == "postgres" else [])
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

    def update_one() -> None:
        for item_to_save in items[:10]:
            item_to_save.size += 1
            item_to_save.save()

    def create_one() -> None:
        for _ in range(10):
            item().save()

    def update_hundred() -> None:
        with transaction.atomic():
            for item_to_save in items:
                item_to_save.size += 1
                item_to_save.save()

    def create_thousand() -> None:
        Item.objects.bulk_create([item() for _ in range(1000)])

    works = {
        "update, single": update_one,
        "create, single": create_one,
        "update, 100 in a transaction": update_hundred,
        "bulk_create of 1000": create_thousand,
    }
    print_line(f"\n{database}: median of {ROUNDS} rounds, ratio to the unwatched save")
    rows = []
    for name, work in works.items():
        unwatched, *others = measure(watch, work, modes)
        ratios = "  ".join(
            f"{mode} {seconds / unwatched:.2f}x"
            for mode, seconds in zip(modes[1:], others, strict=True)
        )
        unwatched_us = unwatched * 1e6 / (10 if "single" in name else 1)
        print_line(f"  {name:30} unwatched {unwatched_us:9.0f} us   {ratios}")
        times = {m: s / unwatched for m, s in zip(modes[1:], others, strict=True)}
        rows.append({"database": database, "name": name, "unwatched_us": unwatched_us, **times})
    print_line(json.dumps(rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"])
    chosen = parser.parse_args().database
    os.environ["REALTIME_TEST_SETTINGS"] = json.dumps({"COLLECTIONS": {}})
    if chosen:
        main(chosen)
    else:
        results.save("save_cost", run_for_each_database("save_cost"), rounds=ROUNDS)

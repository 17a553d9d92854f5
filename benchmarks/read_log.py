"""The time to read events of the log that triggers wrote, beside those that signals wrote.

    python -m benchmarks.read_log            # SQLite and PostgreSQL, one after the other

Triggers write columns as the database holds them, which the reader converts. Measures the decoding
of 1,000 events without the query that reads them, as medians over interleaved rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from benchmarks import results
from benchmarks.common import median, print_line, run_for_each_database, set_up

ROUNDS = 40
EVENTS = 1000
MODES = ("signals", "triggers")


def main(database: str) -> None:
    set_up(database)
    from django.core.management import call_command
    from django.db import connection, models
    from django.test import override_settings

    from django_cocobase_realtime.log.decoding import FIELDS, changes_from_rows
    from django_cocobase_realtime.models import LogEvent
    from tests.app.models import Everything, Item

    def rows_of(model: type[models.Model], mode: str, op: str) -> list[Any]:
        """Return the rows of the log after writes to a model, and empty it."""
        created = [model(**values(model, number)) for number in range(EVENTS)]
        collections = {"watched": {"model": model._meta.label, "capture": mode}}
        with override_settings(COCOBASE_REALTIME={"COLLECTIONS": collections}):
            if mode == "triggers":
                call_command("realtime_triggers", "install", stdout=open(os.devnull, "w"))
            model._default_manager.bulk_create(created)
            if op == "updated":
                field = "size" if model is Item else "big"
                model._default_manager.update(**{field: models.F(field) + 1})
            if mode == "triggers":
                call_command("realtime_triggers", "remove", stdout=open(os.devnull, "w"))
        rows = list(LogEvent.objects.filter(op=op).order_by("id").values_list(*FIELDS))
        LogEvent.objects.all().delete()
        model._default_manager.all().delete()
        assert len(rows) == EVENTS, len(rows)
        return rows

    def values(model: type[models.Model], number: int) -> dict[str, Any]:
        return {"name": f"{time.time_ns()}-{number}"} if model is Item else {"big": number}

    version = database
    if database == "postgres":
        version = f"postgres {connection.pg_version // 10000}"  # type: ignore[attr-defined]
    print_line(f"\n{version}: µs per event, median of {ROUNDS} rounds of {EVENTS} events")
    measured = []
    for model in (Item, Everything):
        for op in ("created", "updated"):
            logged = {mode: rows_of(model, mode, op) for mode in MODES}
            times: dict[str, list[float]] = {mode: [] for mode in MODES}
            collections = {"watched": {"model": model._meta.label}}
            with override_settings(COCOBASE_REALTIME={"COLLECTIONS": collections}):
                for round_number in range(ROUNDS + 1):
                    for mode in MODES:
                        began = time.perf_counter()
                        changes_from_rows("default", logged[mode], epoch="", seqs=range(EVENTS))
                        took = time.perf_counter() - began
                        if round_number:  # the first round warms up
                            times[mode].append(took / EVENTS * 1e6)
            signals, triggers = (median(times[mode]) for mode in MODES)
            name = f"{model.__name__}, {len(model._meta.concrete_fields)} fields, {op}"
            print_line(f"  {name:32} signals {signals:6.1f}  triggers {triggers:6.1f}")
            row = {"database": version, "name": name, "signals_us": signals}
            measured.append({**row, "triggers_us": triggers})
    print_line(json.dumps(measured))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"])
    chosen = parser.parse_args().database
    os.environ["REALTIME_TEST_SETTINGS"] = json.dumps({"COLLECTIONS": {}})
    if chosen:
        main(chosen)
    else:
        results.save("read_log", run_for_each_database("read_log"), rounds=ROUNDS)

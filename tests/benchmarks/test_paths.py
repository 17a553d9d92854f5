"""The benchmarks of the paths detect lost, duplicate and invented events, and compute ratios."""

import os
import subprocess
import sys

from benchmarks.paths import Listener, figures
from benchmarks.process import cpu_seconds
from benchmarks.saver import FIRST_WARM_UP
from benchmarks.write_path import add_ratios

MILLISECOND = 1_000_000
COMMITS = {0: 0, 1: 10 * MILLISECOND, 2: 20 * MILLISECOND}


def listener(*numbers):
    received = Listener()
    for number in numbers:
        received._receive(f"#{number}@1#".encode(), (10 * number + 5) * MILLISECOND)
    return received


def faults(*numbers):
    row = figures(COMMITS, [listener(*numbers)], [])
    return row["lost"], row["duplicates"], row["phantoms"]


def test_events_received_once_have_no_faults():
    row = figures(COMMITS, [listener(0, 1, 2)], [])
    assert (row["lost"], row["duplicates"], row["phantoms"]) == (0, 0, 0)
    assert (row["p50_ms"], row["p99_ms"]) == (5.0, 5.0)
    assert row["events_per_second"] == 3 / 0.025


def test_missing_event_is_counted_as_lost():
    assert faults(0, 2) == (1, 0, 0)


def test_repeated_event_is_counted_as_duplicate():
    assert faults(0, 1, 1, 2) == (0, 1, 0)


def test_event_that_was_not_committed_is_counted_as_phantom():
    assert faults(0, 1, 2, 3) == (0, 0, 1)


def test_events_of_the_warm_up_are_ignored():
    assert faults(0, 1, 2, FIRST_WARM_UP) == (0, 0, 0)


def test_server_with_most_cpu_is_the_one_that_numbers():
    row = figures(COMMITS, [], [0.003, 0.009, 0.006])
    costs = [round(row[name]) for name in ("server_us", "further_us", "together_us")]
    assert costs == [3000, 1500, 6000]


def test_ratios_are_to_the_bare_save_and_path_and_to_the_pubsub_layer():
    def row(name, layer="", **figures):
        return {"name": name, "layer": layer, "save_us": 500.0, "p99_ms": 10.0, **figures}

    rows = [
        row("bare save"),
        row("bare save → NOTIFY → one socket", server_us=200.0),
        row("bare save → NOTIFY → one socket, flat out", server_us=100.0, flat_out=True),
        row("realtime", "pubsub", processes=2, server_us=800.0, further_us=300.0),
        row("realtime", "core", processes=2, server_us=900.0, p99_ms=25.0),
        row("realtime, flat out", "pubsub", processes=2, server_us=150.0, flat_out=True),
    ]
    add_ratios(rows, 500.0)
    assert (rows[3]["server_ratio"], rows[3]["further_ratio"]) == (1.6, 0.6)
    assert rows[3]["path_ratio"] == 4.0
    assert rows[4]["p99_ratio"] == 2.5
    assert rows[5]["path_ratio"] == 1.5
    assert "p99_ratio" not in rows[3]


def test_cpu_of_ended_processes_is_counted():
    before = cpu_seconds(os.getpid())
    work = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    assert cpu_seconds(os.getpid()) - before >= 0.25

"""Measure several servers in turn, so that noise affects all of them, and compute medians."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import median, print_line
from benchmarks.load import Load, Step
from benchmarks.targets import Target


class Bench:
    """A target with its subscribers and its measurements."""

    def __init__(self, target: Target, subscribers: int, classes: int = 1) -> None:
        self.target = target
        self.subscribers = subscribers
        self.classes = classes
        self.load = Load()
        self.refused: str | None = None
        self.rounds: list[dict[str, Any]] = []
        self.closed: dict[str, int] = {}
        self.late = 0

    def start(self) -> None:
        """Start the server and subscribe all sockets. ``refused`` has the reason if it fails."""
        server, target = self.target.server, self.target
        server.start()
        sockets = [
            (server.url, n % self.classes, target.steps(n, n % self.classes))
            for n in range(self.subscribers)
        ]
        result = self.load.open(sockets)
        self.refused = result["refused"]
        self.load.begin(self.classes)

    def resubscribe(self, name: str, steps: Callable[[int], list[Step]], **message: Any) -> None:
        """Replace the subscriptions of the same sockets, for another row; ``steps`` by class."""
        self.target.name, self.target.message = name, message
        self.rounds = []
        classes = [n % self.classes for n in range(self.subscribers)]
        self.refused = self.load.send_steps([(k, steps(k)) for k in classes])["refused"]
        self.load.begin(self.classes)

    def measure(self, seconds: float, least: int = 1, timeout: float = 60) -> None:
        """Measure one round."""
        server, target = self.target.server, self.target
        before = server.cpu
        result = self.load.closed_loop(
            [server.control],
            seconds=seconds,
            least=least,
            count=target.burst,
            timeout=timeout,
            **target.message,
        )
        result["cpu"] = server.cpu - before
        self.rounds.append(result)

    def trigger_alone(self, seconds: float) -> float:
        """Return the server CPU µs of a trigger without an event, part of every event's figure."""
        server = self.target.server
        before = server.cpu
        result = self.load.closed_loop([server.control], seconds=seconds, nothing=True)
        return (server.cpu - before) / result["events"] * 1e6

    def finish(self) -> None:
        """Count events that arrive after the last one."""
        if self.rounds:
            quiet = self.load.quiet(0.2)
            self.late, self.closed = quiet["late"], quiet["closed"]

    def stop(self) -> None:
        """Finish the measurement and stop the server and its subscribers."""
        try:
            self.finish()
        except (RuntimeError, BrokenPipeError):
            print_line(f"    {self.target.name}: the load generator has exited")
        finally:
            self.load.stop()
            self.target.server.kill()

    def row(self) -> dict[str, Any]:
        """Return the medians of the rounds and the sums of the faults."""
        row: dict[str, Any] = {"name": self.target.name, "subscribers": self.subscribers}
        if self.refused or not self.rounds:
            return {**row, "refused": self.refused or "not measured"}
        used = [r for r in self.rounds if r["deliveries"]]
        return {
            **row,
            "events": sum(r["events"] for r in used),
            "deliveries": sum(r["deliveries"] for r in used),
            "us_per_delivery": median(r["cpu"] / r["deliveries"] * 1e6 for r in used),
            "us_per_event": median(r["cpu"] / r["events"] * 1e6 for r in used),
            "us_per_delivery_each_round": [
                round(r["cpu"] / r["deliveries"] * 1e6, 2) for r in used
            ],
            "loader_us_per_delivery": median(r["loader_cpu"] / r["deliveries"] * 1e6 for r in used),
            "frame_bytes": median(r["frame_bytes"] for r in used),
            "frames": sum(r["frames"] for r in used),
            "p50_ms": median(r["p50_ms"] for r in used),
            "p99_ms": median(r["p99_ms"] for r in used),
            "per_second": median(r["deliveries"] / r["wall"] for r in used),
            "lost": sum(r["lost"] for r in used),
            "duplicates": sum(r["duplicates"] for r in used) + self.late,
            "misdirected": sum(r["misdirected"] for r in used),
            "closed": self.closed,
        }


def run(benches: list[Bench], rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Start all benches, measure them in turn, stop them, and return their rows."""
    try:
        for bench in benches:
            start_bench(bench)
        measure_in_turn(benches, rounds, seconds)
    finally:
        for bench in benches:
            bench.stop()
    return [bench.row() for bench in benches]


def start_bench(bench: Bench) -> None:
    """Start a bench; print how long it took, or why it failed."""
    began = time.monotonic()
    try:
        bench.start()
    except (AssertionError, RuntimeError) as error:
        bench.refused = str(error).strip().splitlines()[-1][:200]
    took = f"started in {time.monotonic() - began:.1f} s"
    print_line(f"    {bench.target.name}: {bench.refused or took}"[:160])


def measure_in_turn(benches: list[Bench], rounds: int, seconds: float) -> None:
    """Measure each bench in turn, ``rounds`` times, after one unmeasured event."""
    started = [bench for bench in benches if not bench.refused]
    for bench in started:
        bench.measure(0)
        bench.rounds.clear()
    for _ in range(rounds):
        for bench in started:
            bench.measure(seconds)


def count_faults(rows: list[dict[str, Any]]) -> int:
    """Count the lost, duplicate and misdirected deliveries of all rows."""
    return sum(r.get(name, 0) for r in rows for name in ("lost", "duplicates", "misdirected"))

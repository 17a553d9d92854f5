"""Profile the server with py-spy during the fan-out of events.

    python -m benchmarks.profile --server daphne             # 1,000 subscribers
    python -m benchmarks.profile --row raw_asgi --native
    python -m benchmarks.profile --matches 10                # filtered: ten of them match

Prints the functions by their own time and by their cumulative time. Writes the collapsed stacks to
``benchmarks/results/profile-SERVER-ROW.txt``, for speedscope or flamegraph.pl.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks import fanout, results, targets
from benchmarks.common import print_line, set_up
from benchmarks.measure import Bench, start_bench

IDLE_FUNCTIONS = {"_worker (futures/thread.py)", "wait (python3.11/threading.py)"}
"""Threads waiting in C, which py-spy counts as working."""


def main(arguments: argparse.Namespace) -> int:
    from tests.support.servers import Redis

    set_up("sqlite", "benchmarks.site.settings")
    kind, row = arguments.server, arguments.row
    redis = Redis()
    if "redis" in row:
        redis.start()
    classes = 1
    target = fanout.make_target(row, kind, redis)
    if arguments.matches:
        classes = arguments.subscribers // arguments.matches
        if row == "realtime":
            target = targets.realtime(kind, filters=lambda n: {"status": f"s{n % classes}"})
    bench = Bench(target, arguments.subscribers, classes)
    results.FOLDER.mkdir(exist_ok=True)
    path = results.FOLDER / f"profile-{kind}-{row.replace(' ', '-')}.txt"
    try:
        start_bench(bench)
        bench.measure(1)
        process = bench.target.server.process
        assert process is not None
        pyspy = Path(sys.executable).with_name("py-spy")
        command = [str(pyspy), "record", "--pid", str(process.pid), "--format", "raw"]
        command += ["--rate", str(arguments.rate), "--duration", str(arguments.seconds)]
        command += ["--output", str(path), *(["--native"] if arguments.native else [])]
        spy = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while spy.poll() is None:
            bench.measure(0.5)
        if spy.returncode:
            assert spy.stderr is not None
            print_line(f"py-spy failed: {spy.stderr.read().decode().strip()}")
            return 1
    finally:
        bench.stop()
        if redis.process is not None:
            redis.kill()
    unprofiled = bench.rounds[0]
    unit = "event" if arguments.matches else "delivery"
    us = unprofiled["cpu"] / unprofiled["events" if arguments.matches else "deliveries"] * 1e6
    print_line(f"\n{bench.target.name} on {kind}, {arguments.subscribers} subscribers")
    print_line(f"{us:.1f} µs CPU per {unit} before profiling")
    print_profile(path, arguments.top, us)
    return 0


def print_profile(path: Path, top: int, us: float) -> None:
    """Print the functions of collapsed stacks with their share of ``us`` microseconds."""
    own: Counter[str] = Counter()
    cumulative: Counter[str] = Counter()
    total = 0
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        names = [short_name(frame) for frame in stack.split(";")]
        if names[-1] in IDLE_FUNCTIONS:
            continue
        total += int(count)
        own[names[-1]] += int(count)
        for name in set(names):
            cumulative[name] += int(count)
    for title, counts in (("own time", own), ("cumulative time", cumulative)):
        print_line(f"\n{title}")
        for name, count in counts.most_common(top):
            print_line(f"  {100 * count / total:5.1f}%  {us * count / total:6.2f} µs  {name}")
    print_line(f"\n{total} samples in {path.name}")


def short_name(frame: str) -> str:
    """Return function, folder and file without the line: ``send (uvicorn/wsproto_impl.py)``."""
    name, _, place = frame.partition(" (")
    file = place.rpartition(":")[0] or place.rstrip(")")
    return f"{name} ({'/'.join(file.split('/')[-2:])})" if file else name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", choices=targets.KINDS, default="uvicorn")
    parser.add_argument("--row", choices=fanout.ROWS, default="realtime")
    parser.add_argument("--subscribers", type=int, default=1000)
    parser.add_argument("--matches", type=int, help="subscribers that get an event; all by default")
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--rate", type=int, default=400, help="samples a second")
    parser.add_argument("--top", type=int, default=25)
    parser.add_argument("--native", action="store_true", help="C functions too")
    sys.exit(main(parser.parse_args()))

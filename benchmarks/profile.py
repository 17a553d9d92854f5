"""Where the server's time goes in the fan-out: py-spy on it while events go out.

    python -m benchmarks.profile --server daphne             # ours, 1,000 subscribers
    python -m benchmarks.profile --row raw_asgi --native
    python -m benchmarks.profile --matches 10                # filtered: ten of them match

Prints the functions by their own time, and by all that they call; writes the collapsed stacks to
``benchmarks/results/profile-SERVER-ROW.txt``, for speedscope or flamegraph.pl.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections import Counter
from pathlib import Path

from benchmarks import fanout, results, targets
from benchmarks.common import say, set_up
from benchmarks.measure import Bench, up

WAITING = {"_worker (futures/thread.py)", "wait (python3.11/threading.py)"}
"""What py-spy takes for work: threads that wait in C for something to do."""


def main(arguments: argparse.Namespace) -> int:
    from tests.support.servers import Redis

    set_up("sqlite", "benchmarks.site.settings")
    kind, row = arguments.server, arguments.row
    redis = Redis()
    if "redis" in row:
        redis.start()
    classes = 1
    target = fanout.make(row, kind, redis)
    if arguments.matches:
        classes = arguments.subscribers // arguments.matches
        if row == "realtime":
            target = targets.realtime(kind, filters=lambda n: {"status": f"s{n % classes}"})
    bench = Bench(target, arguments.subscribers, classes)
    results.FOLDER.mkdir(exist_ok=True)
    path = results.FOLDER / f"profile-{kind}-{row.replace(' ', '-')}.txt"
    try:
        up(bench)
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
            say(f"py-spy failed: {spy.stderr.read().decode().strip()}")
            return 1
    finally:
        bench.stop()
        if redis.process is not None:
            redis.kill()
    unspied = bench.rounds[0]
    unit = "event" if arguments.matches else "delivery"
    us = unspied["cpu"] / unspied["events" if arguments.matches else "deliveries"] * 1e6
    say(f"\n{bench.target.name} on {kind}, {arguments.subscribers} subscribers")
    say(f"{us:.1f} µs CPU a {unit} before py-spy looked")
    tell(path, arguments.top, us)
    return 0


def tell(path: Path, top: int, us: float) -> None:
    """Print the functions of collapsed stacks: share, and µs of ``us``."""
    own: Counter[str] = Counter()
    all_of: Counter[str] = Counter()
    total = 0
    for line in path.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        names = [short(frame) for frame in stack.split(";")]
        if names[-1] in WAITING:
            continue
        total += int(count)
        own[names[-1]] += int(count)
        for name in set(names):
            all_of[name] += int(count)
    for title, counts in (("own time", own), ("with what it calls", all_of)):
        say(f"\n{title}")
        for name, count in counts.most_common(top):
            say(f"  {100 * count / total:5.1f}%  {us * count / total:6.2f} µs  {name}")
    say(f"\n{total} samples in {path.name}")


def short(frame: str) -> str:
    """Function, file and its folder, without the line: ``send (uvicorn/wsproto_impl.py)``."""
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

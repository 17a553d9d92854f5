"""A process that saves rows at a rate, and reports its own CPU time and the time of each commit.

It is controlled by `Saver`. ``how`` is the kind of the saves:

bare
    a model that is not watched
note
    the same, then a message with an event frame to the raw bell of `benchmarks.site.bare_bell`:
    NOTIFY on PostgreSQL, Redis pub/sub on SQLite
watched
    a watched model
silent
    a watched model, but servers are not notified: they find the events when they poll
bulk
    a watched model, ``BULK`` rows per transaction, to fill the log faster than single saves do
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Callable
from functools import partial
from typing import Any

from tests.support.servers import ROOT

HOWS = ("bare", "note", "watched", "silent", "bulk")
BULK = 50  # rows of a transaction
WARM_UP = 10  # unmeasured saves
FIRST_WARM_UP = 1_000_000_000  # numbers from here on are not counted
BELL = "benchmark"  # channel of NOTIFY and of Redis


class Saver:
    """A saving process. ``env`` is that of a server, whose database it uses.

    It saves the first ``models`` of `benchmarks.site.many` in turn; if that is 0, posts. With the
    port ``control`` it saves when it is triggered there, as in `benchmarks.site.control`.
    """

    def __init__(
        self,
        env: dict[str, str],
        how: str,
        *,
        rate: float = 0,
        count: int = 0,
        seconds: float = 0,
        first: int = 0,
        redis: str = "",
        models: int = 0,
        control: int = 0,
    ) -> None:
        if how in ("bare", "note"):
            env = {**env, "REALTIME_TEST_SETTINGS": json.dumps({"COLLECTIONS": {}})}
        arguments = {
            "how": how,
            "rate": rate,
            "count": count,
            "seconds": seconds,
            "first": first,
            "redis": redis,
            "models": models,
            "control": control,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.saver", json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=env,
            text=True,
        )

    def wait_ready(self) -> None:
        """Wait until the process has made its first saves."""
        self._read()

    def start(self) -> None:
        """Begin the measured saves."""
        assert self.process.stdin is not None
        self.process.stdin.write("start\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Wait for the end, and return the CPU seconds and the time of each commit by number."""
        result = self._read()
        self.process.wait(20)
        return {"cpu": result["cpu"], "commits": dict(result["commits"])}

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()

    def _read(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("A saving process has exited.")
        return json.loads(line)


def silence() -> None:
    """Remove the notification of servers from this process."""
    from django_cocobase_realtime.pubsub.broker import broker

    assert callable(broker.notify)
    broker.notify = lambda *names: None  # type: ignore[method-assign]


def ring_of(redis: str) -> Callable[[str], object]:
    """Return a function that sends a text to `benchmarks.site.bare_bell`."""
    from django.db import connection

    if connection.vendor == "postgresql":
        cursor = connection.cursor()
        return lambda text: cursor.execute("SELECT pg_notify(%s, %s)", [BELL, text])
    import redis as client

    publish = client.Redis.from_url(redis).publish
    return lambda text: publish(BELL, text)


def bulk_create(numbers: range) -> int:
    """Insert one post for each number. Return the monotonic time after the commit."""
    from benchmarks.site import document
    from tests.app.models import Post

    posts = []
    for number in numbers:
        fields = document.data(number, 1)
        del fields["owner"], fields["created_at"]
        posts.append(Post(**fields))
    Post.objects.bulk_create(posts)
    return time.monotonic_ns()


def save_in_turn(models: int) -> Callable[[int], int]:
    """Return a function that saves the row of a number, and returns the time after the commit."""
    from benchmarks.site import document
    from benchmarks.site.many.models import rows

    saved = [model._default_manager.create() for model in rows[:models]]

    def save(number: int) -> int:
        row = saved[number % models]
        row.body = document.data(number, 1)["body"]
        row.save()
        return time.monotonic_ns()

    return save


def save_when_triggered(port: int, write: Callable[[int], tuple[int, int]]) -> None:
    """Save a row for each number in a datagram, and answer with the time of its commit."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        control.bind(("127.0.0.1", port))
        print(json.dumps("ready"), flush=True)
        while True:
            payload, sender = control.recvfrom(4096)
            message = json.loads(payload)
            for number in range(message["first"], message["first"] + message["count"]):
                at, _ = write(number)
                control.sendto(json.dumps({"n": number, "at": at}).encode(), sender)


def main(
    how: str,
    rate: float,
    count: int,
    seconds: float,
    first: int,
    redis: str,
    models: int,
    control: int,
) -> dict[str, Any]:
    """Save ``count`` rows, or for ``seconds``; ``rate`` is 0 for as fast as possible."""
    import django

    django.setup()
    from benchmarks.site import document, save

    if how == "silent":
        silence()
    ring = ring_of(redis) if how == "note" else None
    save_one = save_in_turn(models) if models else partial(save.save, classes=1)

    def write(number: int) -> tuple[int, int]:
        if how == "bulk":
            return bulk_create(range(number, number + BULK)), BULK
        at = save_one(number)
        if ring is not None:
            ring(document.text(number, 1))
        return at, 1

    for number in range(WARM_UP):
        write(FIRST_WARM_UP + first + number * BULK)
    if control:
        save_when_triggered(control, write)
    print(json.dumps("ready"), flush=True)
    sys.stdin.readline()
    numbers, times = array("q"), array("q")
    done, began, cpu = 0, time.monotonic(), time.process_time()
    while done < count if count else time.monotonic() - began < seconds:
        at, rows = write(first + done)
        numbers.extend(range(first + done, first + done + rows))
        times.extend([at] * rows)
        done += rows
        if rate and (ahead := began + done / rate - time.monotonic()) > 0:
            time.sleep(ahead)
    cpu = time.process_time() - cpu
    return {"cpu": cpu, "commits": list(zip(numbers, times, strict=True))}


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.site.settings")
    print(json.dumps(main(**json.loads(sys.argv[1]))), flush=True)

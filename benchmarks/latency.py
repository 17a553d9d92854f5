"""The time from commit to socket, and of a save while Redis is running, killed or suspended.

python -m benchmarks.latency                 # each database, each layer
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from typing import Any

from benchmarks.common import median, percentile, print_line, set_up

SAVES = 300


async def main(database: str) -> None:
    from asgiref.sync import sync_to_async

    from django_cocobase_realtime.models import ApiKey
    from tests.support.servers import AsgiServer, Redis

    key = await sync_to_async(lambda: ApiKey.objects.create_key("latency")[1])()
    redis = Redis()
    redis.start()
    print_line(f"\n{database}: commit to socket, {SAVES} single saves")
    for kind in ("daphne", "uvicorn"):
        for layer in ("memory", "core", "pubsub"):
            layers = None if layer == "memory" else redis.layer(layer)
            server = AsgiServer(kind, layers=layers)
            await asyncio.to_thread(server.start)
            same_process = await measure_delays(server, key, saver_in_server(server))
            words = f"saved in the server: {format_delays(same_process)}"
            other_process = await measure_delays(server, key, saver_elsewhere(server))
            words += f"   elsewhere: {format_delays(other_process)}"
            print_line(f"  {kind:8} {layer:7} {words}")
            server.stop()
    print_line(f"{database}: milliseconds of a save in another process (core layer)")
    server = AsgiServer("uvicorn", layers=redis.layer("core"))
    for state in ("running", "killed", "suspended"):
        if state == "killed":
            redis.kill()
        if state == "suspended":
            redis.start()
            redis.suspend()
        times = await run_saver(server, SAVES, 0.002)
        words = (
            f"p50 {median(times):6.2f}  p99 {percentile(times, 0.99):6.2f}  max {max(times):6.2f}"
        )
        print_line(f"  Redis {state:9} {words}")
    redis.resume()
    redis.stop()


def format_delays(delays: list[float]) -> str:
    return f"p50 {median(delays):6.1f} ms, p99 {percentile(delays, 0.99):7.1f} ms"


def saver_in_server(server: Any) -> Any:
    async def save(number: int) -> None:
        await asyncio.to_thread(server.post, "/messages", str(number))

    return save


def saver_elsewhere(server: Any) -> Any:
    async def save(number: int) -> None:
        if number == 0:
            save.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "benchmarks.latency", "--save", str(SAVES), "0.02"),
                env=server.env,
                stdout=asyncio.subprocess.DEVNULL,
            )

    return save


async def measure_delays(server: Any, key: str, save: Any) -> list[float]:
    """Return the milliseconds from each save, by the time of the event, to its arrival."""
    from datetime import UTC, datetime

    from tests.support.client import connect

    delays = []
    async with connect(server.socket_url, key) as client:
        await client.subscribe("messages")
        for number in range(SAVES):
            await save(number)
            event = await client.receive("event", timeout=30)
            at = datetime.fromisoformat(event["at"])
            delays.append((datetime.now(UTC) - at).total_seconds() * 1000)
    return delays


async def run_saver(server: Any, saves: int, pause: float) -> list[float]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.latency", "--save", str(saves), str(pause)),
        env=server.env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    out, _ = await process.communicate()
    return [float(delay) for delay in json.loads(out)]


def save(saves: int, pause: float) -> None:
    import django

    django.setup()
    from tests.app.models import Message

    times = []
    Message.objects.create(text="first")
    for number in range(saves - 1):
        began = time.perf_counter()
        Message.objects.create(text=str(number))
        times.append((time.perf_counter() - began) * 1000)
        time.sleep(pause)
    print_line(json.dumps(times))


if __name__ == "__main__":
    if "--save" in sys.argv:
        save(int(sys.argv[2]), float(sys.argv[3]))
        sys.exit(0)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", choices=["sqlite", "postgres"])
    chosen = parser.parse_args().database
    if chosen:
        os.environ.setdefault("REALTIME_TEST_SETTINGS", "")
        set_up(chosen)
        asyncio.run(main(chosen))
    else:
        for database in ("sqlite", "postgres"):
            command = [sys.executable, "-m", "benchmarks.latency", "--database", database]
            subprocess.run(command, check=True)

"""From commit to socket, and what a save takes while Redis is well, dead or frozen.

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

from benchmarks.common import median, percentile, say, set_up

SAVES = 300


async def main(database: str) -> None:
    from asgiref.sync import sync_to_async

    from django_cocobase_realtime.models import ApiKey
    from tests.support.servers import AsgiServer, Redis

    key = await sync_to_async(lambda: ApiKey.objects.create_key("latency")[1])()
    redis = Redis()
    redis.start()
    say(f"\n{database}: commit to socket, {SAVES} single saves")
    for kind in ("daphne", "uvicorn"):
        for layer in ("memory", "core", "pubsub"):
            layers = None if layer == "memory" else redis.layer(layer)
            server = AsgiServer(kind, layers=layers)
            await asyncio.to_thread(server.start)
            own = await listen(server, key, saver_in_server(server))
            words = (
                f"saved in the server: p50 {median(own):5.1f} ms, p99 {percentile(own, 0.99):6.1f}"
            )
            far = await listen(server, key, saver_elsewhere(server))
            words += f"   elsewhere: p50 {median(far):6.1f} ms, p99 {percentile(far, 0.99):7.1f}"
            say(f"  {kind:8} {layer:7} {words}")
            server.stop()
    say(f"{database}: milliseconds of a save in another process (core layer)")
    server = AsgiServer("uvicorn", layers=redis.layer("core"))
    for state in ("well", "dead", "frozen"):
        if state == "dead":
            redis.kill()
        if state == "frozen":
            redis.start()
            redis.suspend()
        times = await run_saver(server, SAVES, 0.002)
        words = (
            f"p50 {median(times):6.2f}  p99 {percentile(times, 0.99):6.2f}  max {max(times):6.2f}"
        )
        say(f"  Redis {state:7} {words}")
    redis.resume()
    redis.stop()


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


async def listen(server: Any, key: str, save: Any) -> list[float]:
    """Milliseconds between the event's own time, taken in the save, and its arrival."""
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
    return [float(each) for each in json.loads(out)]


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
    say(json.dumps(times))


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
        for each in ("sqlite", "postgres"):
            command = [sys.executable, "-m", "benchmarks.latency", "--database", each]
            subprocess.run(command, check=True)

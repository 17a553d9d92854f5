"""Clients of the attacks: their addresses, and how long a login of another client takes."""

import asyncio
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.client import connect

ATTACKER = ("127.0.0.2", 0)
VISITOR = ("127.0.0.3", 0)
DOCUMENTED = "A close code of docs/reference/protocol.md"


@asynccontextmanager
async def attack(url, token=None, **options):
    """Connect from the attacker's address, without compression or limits; drop the connection."""
    options = {"local_addr": ATTACKER, **options}
    options = {"compression": None, "max_size": None, "close_timeout": 0.5, **options}
    async with connect(url, token, authenticate=token is not None, **options) as client:
        yield client
        client.socket.transport.abort()


async def time_login(url, token, collection="posts"):
    """Return the seconds that another client needs to connect, authenticate and subscribe."""
    began = time.monotonic()
    async with connect(url, token, local_addr=VISITOR) as visitor:
        await visitor.subscribe(collection)
        return time.monotonic() - began


async def slowest_login(url, token, logins=3, **options):
    """Return the seconds of the slowest of several logins, one after the other."""
    return max([await time_login(url, token, **options) for _ in range(logins)])


async def receive_answers(client, count, timeout=20.0):
    """Receive so many replies and errors; return them."""
    answers = []
    async with asyncio.timeout(timeout):
        while len(answers) < count:
            frame = await client.receive(timeout=timeout)
            if "id" in frame:
                answers.append(frame)
    return answers


def resident_mib(server):
    """Return the server's resident memory in MiB."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        pytest.skip("Memory is read from /proc.")
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


class PeakMemory:
    """Sample the server's memory until ``stop``, which returns the growth in MiB."""

    def __init__(self, server):
        self.server = server
        self.first = self.highest = resident_mib(server)
        self._task = asyncio.create_task(self._sample())

    async def _sample(self):
        while True:
            self.highest = max(self.highest, resident_mib(self.server))
            await asyncio.sleep(0.05)

    def stop(self):
        self._task.cancel()
        return self.highest - self.first


def assert_no_traceback(server):
    log = server.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]

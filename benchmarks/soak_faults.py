"""The faults of `benchmarks.soak`: of the database, of Redis, and of a server."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

OUTAGE_SECONDS = 3.0  # at most


def lock_or_restart_database() -> None:
    """Hold SQLite's write lock for a while, or restart PostgreSQL and cut its connections."""
    from django.db import connection

    if connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            cursor.execute("BEGIN IMMEDIATE")
            time.sleep(OUTAGE_SECONDS * random.random())
            cursor.execute("ROLLBACK")
    else:
        _restart_postgres()
    connection.close()


def _restart_postgres() -> None:
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("SHOW data_directory")
        folder = Path(cursor.fetchone()[0])
    connection.close()
    pid = int((folder / "postmaster.pid").read_text().split()[0])
    program = Path(f"/proc/{pid}/exe").resolve().parent / "pg_ctl"
    # PostgreSQL does not run as root, so its folder may belong to another user
    owner = folder.stat().st_uid
    options: dict[str, Any] = {} if owner == os.getuid() else {"user": owner}
    command = [str(program), "restart", "-D", str(folder), "-m", "fast", "-w", "-l", "/dev/null"]
    subprocess.run(command, check=True, cwd="/", capture_output=True, timeout=60, **options)


class Faults:
    """Injects faults, one after the other."""

    def __init__(self, server: Any, redis: Any, disturb_database: Callable[[], None]) -> None:
        self.tally: Counter[str] = Counter()
        self._server = server
        self._redis = redis
        self._disturb_database = disturb_database
        self._random = random.Random(7)

    async def inject(self, over: asyncio.Event, interval: float) -> None:
        """Inject a fault every ``interval`` seconds on average, until ``over`` is set."""
        faults = {
            "database": self._database,
            "kill redis": self._kill_redis,
            "suspend redis": self._suspend_redis,
            "kill server": self._kill_server,
        }
        while True:
            for _ in range(int(10 * interval * (0.5 + self._random.random()))):
                if over.is_set():
                    return
                await asyncio.sleep(0.1)
            name = self._random.choice(list(faults))
            self.tally[name] += 1
            await faults[name]()

    async def _database(self) -> None:
        await asyncio.to_thread(self._disturb_database)

    async def _kill_redis(self) -> None:
        await asyncio.to_thread(self._redis.kill)
        await asyncio.sleep(OUTAGE_SECONDS * self._random.random())
        await asyncio.to_thread(self._redis.start)

    async def _suspend_redis(self) -> None:
        self._redis.suspend()
        await asyncio.sleep(OUTAGE_SECONDS * self._random.random())
        self._redis.resume()

    async def _kill_server(self) -> None:
        await asyncio.to_thread(self._server.kill)
        await asyncio.sleep(OUTAGE_SECONDS * self._random.random())
        await asyncio.to_thread(self._server.start)

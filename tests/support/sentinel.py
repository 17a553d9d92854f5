"""Redis Sentinel: a master, a replica, and the sentinels that replace the one by the other."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from .servers import Redis, Server, free_port

MASTER = "mymaster"
# milliseconds without an answer after which a sentinel takes the master for failed
DOWN_AFTER = 1000


class Replica(Redis):
    """A Redis that copies another one, with a folder for what it receives."""

    def __init__(self, master: Redis, folder: Path) -> None:
        super().__init__()
        self.command += ["--replicaof", "127.0.0.1", str(master.port), "--dir", str(folder)]


class Sentinel(Server):
    """A sentinel that watches one master. It writes to its configuration, so it has a folder."""

    def __init__(self, master: Redis, folder: Path, quorum: int) -> None:
        configuration = folder / f"sentinel-{free_port()}.conf"
        super().__init__([master.command[0], str(configuration), "--sentinel"])
        configuration.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {folder}\n"
            f"sentinel monitor {MASTER} 127.0.0.1 {master.port} {quorum}\n"
            f"sentinel down-after-milliseconds {MASTER} {DOWN_AFTER}\n"
            f"sentinel failover-timeout {MASTER} 4000\n"
        )


class RedisWithSentinels:
    """A master, a replica and three sentinels, of which two must agree."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="realtime-sentinel-"))
        self.master = Redis()
        self.master.command += ["--dir", str(self._folder)]
        self.replica = Replica(self.master, self._folder)
        self.sentinels = [Sentinel(self.master, self._folder, quorum=2) for _ in range(3)]

    @property
    def host(self) -> dict[str, Any]:
        """An item of ``hosts`` in the configuration of a channel layer."""
        return {
            "sentinels": [("127.0.0.1", sentinel.port) for sentinel in self.sentinels],
            "master_name": MASTER,
        }

    def start(self) -> None:
        for server in (self.master, self.replica, *self.sentinels):
            server.start()
        self.wait(lambda state: state["num-slaves"] == 1 and state["num-other-sentinels"] == 2)

    def wait(self, condition: Any, seconds: float = 30) -> None:
        """Wait until the state of the master, as each sentinel sees it, meets a condition."""
        until = time.monotonic() + seconds
        for sentinel in self.sentinels:
            client = redis.Redis(port=sentinel.port, decode_responses=True)
            with contextlib.closing(client):
                while not condition(state := client.sentinel_master(MASTER)):
                    assert time.monotonic() < until, state
                    time.sleep(0.1)

    def wait_for_failover(self) -> None:
        self.wait(lambda state: state["port"] == self.replica.port)

    def stop(self) -> None:
        for server in (*self.sentinels, self.replica, self.master):
            server.kill()
        shutil.rmtree(self._folder)

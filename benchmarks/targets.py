"""The measured servers, each in a subprocess, and how a client subscribes to them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.load import Step
from benchmarks.process import cpu_seconds, rss_bytes
from tests.support.servers import Server, free_port

PEERS = Path(__file__).parent / "peers"
Filters = Callable[[int], dict[str, Any]]
KINDS = ("uvicorn", "daphne")


class MeasuredServer(Server):
    """A server with a control port; see `benchmarks.site.control`."""

    def __init__(self, command: list[str], env: dict[str, str], path: str) -> None:
        self.control = free_port()
        super().__init__(command, {"BENCH_CONTROL": str(self.control), **env})
        self.path = path

    @property
    def url(self) -> tuple[str, int, str]:
        """Return the host, port and path of its WebSocket."""
        return ("127.0.0.1", self.port, self.path)

    @property
    def cpu(self) -> float:
        """Return the CPU seconds of the process tree so far, user and system."""
        assert self.process is not None
        return cpu_seconds(self.process.pid)

    @property
    def rss(self) -> int:
        """Return the resident bytes of the process tree."""
        assert self.process is not None
        return rss_bytes(self.process.pid)


@dataclass
class Target:
    """A row: a server, the steps of its clients, and the message that triggers an event."""

    name: str
    server: MeasuredServer
    steps: Callable[[int, int], list[Step]]
    message: dict[str, Any] = field(default_factory=dict)
    burst: int = 1


def asgi(
    kind: str,
    module: str,
    path: str = "/realtime",
    *,
    layers: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
    shared: bool = False,
    **env: str,
) -> MeasuredServer:
    """Run one of the applications in ``benchmarks.site`` with uvicorn or daphne.

    On SQLite each server gets a copy of the database, unless ``shared``: servers on one database
    receive each other's saves.
    """
    from django.db import connections

    databases = {alias: dict(connections[alias].settings_dict) for alias in connections}
    for alias, database in databases.items():
        database["NAME"] = str(connections[alias].settings_dict["NAME"])
        if connections[alias].vendor == "sqlite" and not shared:
            folder = tempfile.mkdtemp(dir=Path(database["NAME"]).parent)
            database["NAME"] = f"{folder}/{alias}.sqlite3"
            with connections[alias].cursor() as cursor:
                cursor.execute("VACUUM INTO %s", [database["NAME"]])
    command = {
        "uvicorn": [
            *("uvicorn", "--host", "127.0.0.1", "--port", "{port}", "--lifespan", "off"),
            *("--ws", "websockets-sansio", "--log-level", "warning", "--backlog", "4096"),
        ],
        "daphne": ["daphne", "-b", "127.0.0.1", "-p", "{port}", "-v", "0"],
    }[kind]
    return MeasuredServer(
        [sys.executable, "-m", *command, f"benchmarks.site.{module}:application"],
        {
            "DJANGO_SETTINGS_MODULE": "benchmarks.site.settings",
            "REALTIME_TEST_DATABASES": json.dumps(databases, default=str),
            "REALTIME_TEST_LAYERS": json.dumps(layers) if layers else "",
            "REALTIME_TEST_SETTINGS": json.dumps(settings) if settings else "",
            **env,
        },
        path,
    )


def token(user: int) -> str:
    """Create a JSON Web Token for the user with this number."""
    import jwt

    from tests.settings import COCOBASE_REALTIME

    claims = {"sub": user, "exp": int(time.time()) + 86400, "name": f"user {user}"}
    key: str = COCOBASE_REALTIME["JWT"]["KEY"]
    return jwt.encode(claims, key, "HS256")


def subscribe(filters: dict[str, Any], collection: str = "posts") -> list[Step]:
    """Return the step that subscribes to a collection, or replaces the subscription."""
    frame = {"type": "subscribe", "collection": collection, "subscription": "posts"}
    return [(json.dumps({**frame, "filters": filters}), '"subscribed"')]


def realtime(
    kind: str,
    name: str = "realtime",
    *,
    filters: Filters = lambda number: {"status": "s0"},
    user: Callable[[int], int] = lambda number: number,
    batch: bool = False,
    burst: int = 1,
    **options: Any,
) -> Target:
    """Return the target of this project. Each subscriber has its own user and filter."""

    def steps(number: int, klass: int) -> list[Step]:
        auth = {"type": "auth", "token": token(user(number))}
        if batch:
            auth["batch"] = True  # type: ignore[assignment]
        return [(json.dumps(auth), '"authenticated"'), *subscribe(filters(number))]

    return Target(name, asgi(kind, "realtime", **options), steps, burst=burst)


def _class_step(**more: Any) -> Callable[[int, int], list[Step]]:
    return lambda number, klass: [(json.dumps({"class": klass, **more}), "ok")]


def raw_asgi(kind: str, name: str = "raw ASGI loop", burst: int = 1, **options: Any) -> Target:
    """Return the target of the raw ASGI loop."""
    return Target(name, asgi(kind, "raw_asgi", **options), _class_step(), burst=burst)


def channels_consumer(
    kind: str, name: str, *, classes: int = 1, grouped: bool = False, burst: int = 1, **options: Any
) -> Target:
    """Return the target of a Channels consumer."""
    steps = _class_step(classes=classes, grouped=grouped)
    return Target(
        name, asgi(kind, "channels_consumer", **options), steps, {"grouped": grouped}, burst
    )


def dcrf(kind: str, name: str, *, grouped: bool = False, save: bool = True, **options: Any) -> Any:
    """Return the target of djangochannelsrestframework, or None if it is not installed."""
    if find_spec("djangochannelsrestframework") is None:
        return None
    options["BENCH_APPS"] = '["djangochannelsrestframework"]'
    options["BENCH_GROUPED"] = "1" if grouped else ""
    # no collection is watched by django-cocobase-realtime
    options.setdefault("settings", {"COLLECTIONS": {}})

    def steps(number: int, klass: int) -> list[Step]:
        return [(json.dumps({"action": "watch", "request_id": 1, "status": f"s{klass}"}), "ok")]

    return Target(name, asgi(kind, "dcrf", **options), steps, {"save": save})


def broadcast(name: str = "websockets.broadcast", burst: int = 1) -> Target:
    """Return the target of the `websockets` library's server."""
    command = [sys.executable, str(PEERS / "broadcast.py"), "{port}"]
    return Target(name, MeasuredServer(command, {}, "/"), _class_step(), burst=burst)


def socketio(name: str = "Socket.IO (Node)", burst: int = 1) -> Target | None:
    """Return the target of Socket.IO, or None if it cannot be installed."""
    if not install_socketio():
        return None
    server = MeasuredServer(
        ["node", str(PEERS / "socketio.mjs"), "{port}"],
        {"NODE_ENV": "production"},
        "/socket.io/?EIO=4&transport=websocket",
    )

    def steps(number: int, klass: int) -> list[Step]:
        return [(None, '"sid"'), ("40", '40{"sid"'), (f'42["watch",{klass}]', '42["ok"]')]

    return Target(name, server, steps, burst=burst)


def install_socketio() -> bool:
    """Install Socket.IO on first use. Return whether it is available."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return False
    if not (PEERS / "node_modules" / "socket.io").exists():
        command = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock"]
        done = subprocess.run(command, cwd=PEERS, capture_output=True, timeout=120)
        return done.returncode == 0
    return True

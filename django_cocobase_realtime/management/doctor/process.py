"""Probes of this machine and this project: settings, limits, and the ASGI server."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string

from ...conf import conf
from ...pubsub.layer import channel_layer, is_in_memory
from .base import Finding
from .database import server_processes

# ASGI servers
SERVERS = ("daphne", "uvicorn", "hypercorn", "granian")
# open files of a process besides its WebSockets
OTHER_FILES = 200
# the option of gunicorn that names the class of its workers
WORKER_CLASS = re.compile(r"(?:-k|--worker-class)[ =](\S+)")


def probe_settings(*, deploy: bool = False) -> Iterator[Finding]:
    """Run the system checks of the app."""
    messages = [
        message
        for message in checks.run_checks(tags=["realtime"], include_deployment_checks=deploy)
        if message.level >= checks.WARNING and not message.is_silenced()
    ]
    for message in messages:
        identifier = (message.id or "").rpartition(".")[2]
        text = f"{identifier}: {message.msg}"
        is_error = message.level >= checks.ERROR
        yield Finding("fail" if is_error else "warn", text, str(message.hint or ""))
    if not messages:
        yield Finding("ok", "The system checks find no mistake in the settings.")


def probe_open_files() -> Iterator[Finding]:
    """Compare the limit of open files with the connections that a process accepts."""
    limit = open_files_limit()
    if limit is None:
        return
    wanted = conf.limits.connections_per_process
    needed = wanted + conf.workers + OTHER_FILES
    text = f"This shell allows {limit} open files; a server needs up to {needed}"
    if limit < needed:
        yield Finding(
            "warn",
            f"{text} for the {wanted} connections of LIMITS['connections_per_process'].",
            "Raise it for the server (ulimit -n, LimitNOFILE of systemd), or lower the limit.",
        )
    else:
        yield Finding("ok", f"{text}.")


def open_files_limit() -> int | None:
    """Return how many files a process may open; None if that is not limited, or not known."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def probe_server() -> Iterator[Finding]:
    """Find the ASGI servers that are installed, and bad options in the environment."""
    installed = {name: number for name in SERVERS if (number := _version(name)) is not None}
    if not installed:
        hint = "Install daphne or uvicorn."
        yield Finding("fail", "No ASGI server is installed in this environment.", hint)
    else:
        names = ", ".join(f"{name} {number}" for name, number in installed.items())
        yield Finding("ok", f"Installed: {names}.")
    without = find_spec("websockets") is None and find_spec("wsproto") is None
    if "uvicorn" in installed and without:
        yield Finding(
            "fail" if len(installed) == 1 else "warn",
            "uvicorn cannot accept WebSockets: neither websockets nor wsproto is installed.",
            'Install "uvicorn[standard]".',
        )
    worker = WORKER_CLASS.search(os.environ.get("GUNICORN_CMD_ARGS", ""))
    if worker is not None and "uvicorn" not in worker[1].lower():
        yield Finding(
            "warn",
            f"GUNICORN_CMD_ARGS names the worker class {worker[1]}.",
            "gunicorn serves WebSockets only with uvicorn's workers.",
        )
    processes, layer = server_processes(), channel_layer()
    if processes > 1 and (layer is None or is_in_memory(layer)):
        yield Finding(
            "fail",
            f"WEB_CONCURRENCY starts {processes} processes, which no channel layer connects.",
            "Use channels_redis, or one process.",
        )


def probe_application() -> Iterator[Finding]:
    """Import the ASGI application, and look whether it routes WebSockets."""
    path = getattr(settings, "ASGI_APPLICATION", None)
    if not path:
        path = f"{settings.SETTINGS_MODULE.rpartition('.')[0]}.asgi.application"
        if find_spec(path.partition(".")[0]) is None:
            return
    application: Any = import_string(path)
    mapping = getattr(application, "application_mapping", None)
    if mapping is None:
        yield Finding("ok", f"{path} can be imported.")
    elif "websocket" in mapping:
        yield Finding("ok", f"{path} routes WebSockets.")
    else:
        hint = 'Add "websocket": realtime_application() to the ProtocolTypeRouter.'
        yield Finding("fail", f"{path} does not route WebSockets.", hint)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

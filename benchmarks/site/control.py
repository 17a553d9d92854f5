"""The trigger: a datagram to the server's event loop.

``{"first": n, "count": k, "classes": c, ...}`` triggers k events. It costs every server the same,
about 10 µs, and keeps HTTP out of the measurement.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import json
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from typing import Any

Emit = Callable[[dict[str, Any]], "Coroutine[Any, Any, None] | None"]
_tasks: set[asyncio.Task[None]] = set()
_opened: list[socket.socket] = []


def listen(emit: Emit) -> None:
    """Pass each request to ``emit`` in the running loop. The first call opens the socket."""
    if _opened:
        return
    loop = asyncio.get_running_loop()
    control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    control.setblocking(False)
    control.bind(("127.0.0.1", int(os.environ["BENCH_CONTROL"])))
    _opened.append(control)

    def ready() -> None:
        try:
            payload, sender = control.recvfrom(4096)
        except BlockingIOError:
            return
        message = json.loads(payload)
        message["reply"] = lambda number, at: control.sendto(
            json.dumps({"n": number, "at": at}).encode(), sender
        )
        if message.get("memory"):
            message["reply"](message["memory"], release_memory())
            return
        if message.get("queries"):
            message["reply"](0, sys.modules["benchmarks.site.query_count"].count)
            return
        if message.get("nothing"):  # to measure the cost of the trigger alone
            message["reply"](message["first"], 0)
            return
        work = emit(message)
        if work is not None:
            task = loop.create_task(work)
            _tasks.add(task)
            task.add_done_callback(_tasks.discard)

    loop.add_reader(control.fileno(), ready)


def release_memory() -> int:
    """Return unused memory to the system. Return the bytes that wait for connections, or -1.

    The number is the one that the app itself counts.
    """
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    module = sys.modules.get("django_cocobase_realtime.hub.hub")
    if module is None:
        return -1
    writers = [connection.writer for connection in module.Hub.current().connections.values()]
    return sum(getattr(writer, "waiting_bytes", 0) for writer in writers)


def numbers(message: dict[str, Any]) -> range:
    """Return the numbers of the requested events."""
    return range(message["first"], message["first"] + message["count"])

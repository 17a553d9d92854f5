"""Probes of what connects processes: the channel layer, and the store of presence."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from channels.layers import channel_layers
from django.conf import settings
from django.utils.module_loading import import_string

from ...conf import conf
from ...inspection.connections import connections
from ...presence.base import BACKENDS, PresenceBackend
from ...pubsub.layer import MESSAGE_TYPE, channel_layer, is_in_memory
from .base import Finding

# seconds that a message may take to come back; less than a probe may take
ROUND_TRIP_TIMEOUT = 4.0
# seconds after which it is slow
SLOW_ROUND_TRIP = 0.1
# seconds that server processes may take to answer
ANSWER_TIMEOUT = 3.0


def probe_layer() -> Iterator[Finding]:
    """Send a message to a group of the channel layer, and receive it."""
    alias = conf.channel_layer
    if alias not in getattr(settings, "CHANNEL_LAYERS", {}):
        yield Finding("fail", f"There is no channel layer {alias!r}.", "Set CHANNEL_LAYERS.")
        return
    layer = channel_layers.make_backend(alias)
    name = type(layer).__name__
    try:
        seconds = asyncio.run(measure_round_trip(layer))
    except TimeoutError:
        hint = "Look at Redis, and at a firewall between it and this machine."
        yield Finding("fail", f"A message through {name} did not come back.", hint)
        return
    if is_in_memory(layer):
        yield Finding(
            "warn",
            "The in-memory channel layer does not reach other processes.",
            "Use channels_redis, unless there is one server process and nothing else broadcasts.",
        )
        return
    text = f"A message through {name} comes back in {seconds * 1000:.1f} ms."
    if seconds > SLOW_ROUND_TRIP:
        yield Finding("warn", text, "Put Redis near the servers.")
    else:
        yield Finding("ok", text)


async def measure_round_trip(layer: Any) -> float:
    """Return the seconds that a message to a group takes. Raises the exceptions of the layer."""
    group = f"realtime.doctor.{secrets.token_hex(8)}"
    try:
        async with asyncio.timeout(ROUND_TRIP_TIMEOUT):
            channel = await layer.new_channel()
            await layer.group_add(group, channel)
            started_at = time.monotonic()
            await layer.group_send(group, {"type": MESSAGE_TYPE, "events": []})
            await layer.receive(channel)
            seconds = time.monotonic() - started_at
            await layer.group_discard(group, channel)
            return seconds
    finally:
        # of the core layer; the pubsub layer closes its connections with the loop
        with suppress(Exception):
            await layer.close_pools()


def probe_processes() -> Iterator[Finding]:
    """Ask all server processes for their connections."""
    layer = channel_layer()
    if layer is None or is_in_memory(layer):
        return
    started_at = time.monotonic()
    listed = connections(timeout=ANSWER_TIMEOUT)
    seconds = time.monotonic() - started_at
    servers = len({connection.server for connection in listed})
    text = f"{servers} server processes with {len(listed)} connections have answered"
    if seconds >= ANSWER_TIMEOUT:
        hint = "Others are blocked, were killed a moment ago, or run a version that cannot answer."
        yield Finding("warn", f"{text} within {ANSWER_TIMEOUT:g} s.", hint)
    elif listed:
        yield Finding("ok", f"{text} in {seconds * 1000:.0f} ms.")
    else:
        yield Finding("ok", "No server process has a connection.")


def probe_presence() -> Iterator[Finding]:
    """Write to the store of presence, and read what was written."""
    presence = conf.presence
    backend: PresenceBackend = import_string(BACKENDS.get(presence.backend, presence.backend))(
        presence
    )
    name, key = type(backend).__name__, f"doctor:{secrets.token_hex(8)}"
    started_at = time.monotonic()
    try:
        is_new, is_again = backend.acquire_key(key, 60.0), backend.acquire_key(key, 60.0)
        backend.release_key(key)
    finally:
        backend.close()
    seconds = time.monotonic() - started_at
    if not is_new or is_again:
        hint = "Use one Redis that is no replica, or another PRESENCE backend."
        yield Finding("fail", f"{name} does not keep what is written.", hint)
    else:
        yield Finding("ok", f"{name} answers three calls in {seconds * 1000:.1f} ms.")

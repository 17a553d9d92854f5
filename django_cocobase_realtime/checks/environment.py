"""Checks of the channel layer, Redis, daphne and the development server."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage
from django.core.management import get_commands

from ..conf import conf
from ..pubsub.layer import layer_hosts
from ..transport.input_limits import is_bounded, max_message_bytes
from .base import error, warning

CORE_LAYER = "channels_redis.core.RedisChannelLayer"
CORE_LAYER_BLOCKS = 5  # seconds for which the core layer waits for a message in one call
DAPHNE_MINIMUM = (4, 2, 3)  # first version without a known security hole
# texts that uvicorn takes for True in environment variables
TRUE_TEXTS = ("1", "true", "t", "yes", "y", "on")
# apps whose runserver command does not serve WebSockets
WSGI_RUNSERVERS = ("django.core", "django.contrib.staticfiles")


def check_channel_layer() -> Iterator[CheckMessage]:
    """Check that the channel layer exists and suits the rest of the configuration."""
    alias = conf.channel_layer
    layers = getattr(settings, "CHANNEL_LAYERS", {})
    if alias not in layers:
        yield error(
            50,
            f"There is no channel layer {alias!r}: nothing would be delivered.",
            "Set CHANNEL_LAYERS; channels.layers.InMemoryChannelLayer is enough for one process.",
        )
        return
    backend = str(layers[alias].get("BACKEND", ""))
    if (
        backend == CORE_LAYER
        and _major_version("redis") >= 8
        and any(_is_aborted(host) for host in layer_hosts())
    ):
        yield warning(
            53,
            "The core channel layer reads for as long as redis-py waits, or longer.",
            "Give each host {'address': ..., 'socket_timeout': 15}, or use the pubsub layer.",
        )
    if not apps.is_installed("channels"):
        yield warning(52, "'channels' is not in INSTALLED_APPS.", "Add it.")


def _is_aborted(host: Any) -> bool:
    """Return whether reads of the core layer from a host are aborted while nothing happens."""
    timeout = host.get("socket_timeout", 0) if isinstance(host, dict) else 0
    return timeout is not None and timeout <= CORE_LAYER_BLOCKS


def check_layer_hosts() -> Iterator[CheckMessage]:
    """Check that connections to each Redis of the channel layer can be made."""
    layer = getattr(settings, "CHANNEL_LAYERS", {}).get(conf.channel_layer, {})
    if not str(layer.get("BACKEND", "")).startswith("channels_redis."):
        return
    # imported here, because the import of redis takes longer than all other checks together
    from channels_redis.utils import (  # type: ignore[import-untyped]
        create_pool,
        decode_hosts,
    )

    hosts = (layer.get("CONFIG") or {}).get("hosts")
    hint = "Each is a URL, a pair (host, port), or a dictionary of options of redis-py."
    try:
        decoded = decode_hosts(hosts)
    except (ValueError, TypeError, LookupError) as problem:
        yield error(71, f"The 'hosts' of the channel layer are not valid: {problem}", hint)
        return
    for number, host in enumerate(decoded):
        try:
            pool = create_pool(host)
            pool.connection_class(**pool.connection_kwargs)
        except Exception as problem:  # whatever redis-py raises
            yield error(
                71,
                f"The channel layer cannot connect to item {number} of its 'hosts': {problem!r}",
                hint,
            )


def check_runserver() -> Iterator[CheckMessage]:
    """If the development server is being started, check that it serves WebSockets."""
    if sys.argv[1:2] == ["runserver"] and get_commands()["runserver"] in WSGI_RUNSERVERS:
        yield warning(
            54,
            "This runserver is a WSGI server, which serves no WebSockets.",
            "Put 'daphne' first in INSTALLED_APPS and set ASGI_APPLICATION, or run uvicorn.",
        )


def check_message_sizes() -> Iterator[CheckMessage]:
    """Check that no setting lets servers accept WebSocket messages of any size.

    Options on the command line cannot be seen here; the server process logs a warning.
    """
    if conf.problems("LIMITS"):
        return
    environ, sizes = os.environ, {}
    for name in ("DAPHNE_WEBSOCKET_MAX_MESSAGE_SIZE", "DAPHNE_WEBSOCKET_MAX_FRAME_SIZE"):
        sizes[name] = getattr(settings, name, 1)
    if environ.get("UVICORN_WS_MAX_SIZE", "").isdigit():
        sizes["UVICORN_WS_MAX_SIZE"] = int(environ["UVICORN_WS_MAX_SIZE"])
    problems = [
        f"{name} should be at most {max_message_bytes()}, and not 0."
        for name, size in sizes.items()
        if not is_bounded(size)
    ]
    if environ.get("UVICORN_WS_PER_MESSAGE_DEFLATE", "false").lower() in TRUE_TEXTS:
        problems.append("UVICORN_WS_PER_MESSAGE_DEFLATE should be false.")
    for problem in problems:
        yield warning(
            56, f"Clients without a credential can fill the memory of the server: {problem}"
        )


def check_daphne() -> Iterator[CheckMessage]:
    """Check that the installed daphne has no known security hole."""
    if not apps.is_installed("daphne"):
        return
    try:
        installed = version("daphne")
    except PackageNotFoundError:
        return
    numbers = tuple(int(n) for n in installed.split(".")[:3] if n.isdigit())
    if numbers < DAPHNE_MINIMUM:
        minimum = ".".join(map(str, DAPHNE_MINIMUM))
        yield warning(70, f"daphne {installed} has a known security hole.", f"Use >= {minimum}.")


def _major_version(package: str) -> int:
    """Return the major version of an installed package, or 0."""
    try:
        return int(version(package).partition(".")[0])
    except (PackageNotFoundError, ValueError):
        return 0

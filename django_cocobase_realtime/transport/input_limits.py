"""Limits of what the server reads from clients, and detection of servers without such limits.

A server keeps a message in memory before it passes it on, and decompresses it if compression is
on. A few hundred bytes may become a megabyte, so that clients without a credential could fill the
memory. With most servers the app cannot prevent that: it finds their settings behind ``send``.
"""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings

from ..conf import conf
from . import daphne, hypercorn

logger = logging.getLogger(__name__)

# bytes that a message may have in the documented configurations, if the app does not accept more
MAX_MESSAGE_BYTES = 1024 * 1024
# the check whose warnings are logged here; it may be silenced in the settings
CHECK_ID = "cocobase_realtime.W056"

# whether `_warn_if_unbounded` has looked at the server
_looked = False


def limit_input(send: Any) -> None:
    """Limit what the server behind ``send`` reads, before the connection is accepted.

    If that is not possible, a warning is logged, once per process.
    """
    daphne.limit_reads(send)
    hypercorn.limit_messages(send, max_message_bytes())
    _warn_if_unbounded(send)


def _warn_if_unbounded(send: Any) -> None:
    global _looked
    if _looked:
        return
    _looked = True
    if CHECK_ID in settings.SILENCED_SYSTEM_CHECKS:
        return
    for problem in find_problems(send):
        logger.warning(
            "Clients without a credential can fill the memory of this server: %s "
            "See %s in the reference of system checks.",
            problem,
            CHECK_ID,
        )


def find_problems(send: Any) -> list[str]:
    """Return what is wrong with the settings of the server, as sentences that say what to do.

    Nothing is found with unknown servers, or if ``send`` is wrapped.
    """
    owner: Any = getattr(send, "__self__", None)
    if type(owner).__module__.partition(".")[0] == "granian":
        return ["granian accepts messages of 64 MiB, and has no option to limit them."]
    config: Any = getattr(owner, "config", None)
    # uvicorn's worker for gunicorn sets this function
    in_gunicorn = getattr(config, "callback_notify", None) is not None
    problems = []
    if getattr(config, "ws_per_message_deflate", False):
        problems.append(
            "set ws_per_message_deflate to False in CONFIG_KWARGS of the worker class."
            if in_gunicorn
            else "start uvicorn with --ws-per-message-deflate false."
        )
    advice, size = _message_size(send, config, in_gunicorn)
    if not is_bounded(size) and not hypercorn.is_limited(send):
        problems.append(f"{advice} {max_message_bytes()}.")
    return problems


def _message_size(send: Any, config: Any, in_gunicorn: bool) -> tuple[str, Any]:
    """Return how to limit the size of messages, and the limit in bytes, which is 1 if unknown."""
    if (protocol := daphne.find_protocol(send)) is not None:
        factory: Any = getattr(protocol, "factory", None)
        size = getattr(factory, "maxMessagePayloadSize", 1)
        return "start daphne with --websocket-max-message-size", size
    if hasattr(config, "websocket_max_message_size"):
        size = config.websocket_max_message_size
        return "set websocket_max_message_size in the configuration of hypercorn to", size
    size = getattr(config, "ws_max_size", 1)
    if in_gunicorn:
        return "set ws_max_size in CONFIG_KWARGS of the worker class to", size
    return "start uvicorn with --ws-max-size", size


def is_bounded(size: Any) -> bool:
    """Return whether a limit of bytes is not much higher than what the app accepts."""
    return isinstance(size, int) and 0 < size <= max_message_bytes()


def max_message_bytes() -> int:
    """Return the bytes to which a server should limit messages."""
    return max(MAX_MESSAGE_BYTES, conf.limits.message_bytes)

"""Detection of servers that accept WebSocket messages of any size.

A server keeps a message in memory before it passes it on, and decompresses it if compression is
on. A few hundred bytes may become a megabyte, so that clients without a credential could fill the
memory. The app cannot prevent that; it finds the server's settings behind ``send``.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from ..conf import conf

logger = logging.getLogger(__name__)

# bytes that a message may have in the documented configurations, if the app does not accept more
MAX_MESSAGE_BYTES = 1024 * 1024

# whether `warn_if_unbounded` has looked at the server
_looked = False


def warn_if_unbounded(send: Any) -> None:
    """Log a warning, once per process, if the server behind ``send`` accepts any message."""
    global _looked
    if _looked:
        return
    _looked = True
    for problem in find_problems(send):
        logger.warning(
            "Clients without a credential can fill the memory of this server: %s "
            "See cocobase_realtime.W056 in the reference of system checks.",
            problem,
        )


def find_problems(send: Any) -> list[str]:
    """Return what is wrong with the settings of the server, as sentences that say what to do.

    Nothing is found with servers other than uvicorn and daphne, or if ``send`` is wrapped.
    """
    config: Any = getattr(getattr(send, "__self__", None), "config", None)
    problems = []
    if getattr(config, "ws_per_message_deflate", False):
        problems.append("start uvicorn with --ws-per-message-deflate false.")
    size = getattr(config, "ws_max_size", 1)
    option = "uvicorn with --ws-max-size"
    if isinstance(send, partial) and send.args:  # daphne
        factory: Any = getattr(send.args[0], "factory", None)
        size = getattr(factory, "maxMessagePayloadSize", 1)
        option = "daphne with --websocket-max-message-size"
    if not is_bounded(size):
        problems.append(f"start {option} {max_message_bytes()}.")
    return problems


def is_bounded(size: Any) -> bool:
    """Return whether a limit of bytes is not much higher than what the app accepts."""
    return isinstance(size, int) and 0 < size <= max_message_bytes()


def max_message_bytes() -> int:
    """Return the bytes to which a server should limit messages."""
    return max(MAX_MESSAGE_BYTES, conf.limits.message_bytes)

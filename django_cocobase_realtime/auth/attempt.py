"""One attempt to authenticate, over a socket or HTTP: who fails often is answered late."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from ..identity import Identity
from ..utils.concurrency import run_in_threadpool
from .backends import authenticate
from .throttling import auth_throttle


async def authenticate_throttled(
    token: str | None, scope: Mapping[str, Any], address: str
) -> Identity | None:
    """The identity that ``token`` proves, None for none; a failure counts against ``address``.

    ``scope``: the ASGI scope of the request. Raises ``AuthenticationUnavailable``.
    """
    now = time.monotonic()
    delay = auth_throttle.delay(address, now)
    if delay:
        await asyncio.sleep(delay)
    if token is not None and auth_throttle.is_known_bad(token, now):
        return None
    identity = await run_in_threadpool(authenticate, token, scope)
    if identity is None:
        auth_throttle.record_failure(address, token, now)
    return identity

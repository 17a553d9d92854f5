"""The rate at which an address may open connections: further ones are accepted later."""

from __future__ import annotations

import asyncio
import time

from ..options import Limits
from ..utils.limits import KeyedRate

# seconds after which an address may have opened `connections_per_address` again; as many may be
# opened at once
REFILL_SECONDS = 5.0

# the counts of this process
connection_rates = KeyedRate()


async def wait_until_allowed(address: str, limits: Limits) -> None:
    """Wait until an address may open another connection.

    Opening one takes more of the server's time than the requests that the other limits bound.
    """
    burst = limits.connections_per_address
    rate = burst / REFILL_SECONDS, burst
    while wait_ms := connection_rates.acquire(  # noqa: ASYNC110
        address, rate, time.monotonic()
    ):
        await asyncio.sleep(wait_ms / 1000)

"""How every scenario begins, and comes back."""

from __future__ import annotations

from typing import Any

from tests.clients.drivers import Driver
from tests.clients.script import Script


async def start(server: Script, client: Driver, **options: Any) -> None:
    await client.do("create", url=server.url, **{"tokens": "key", **options})
    await client.next("db", "status", status="connecting")


async def back(server: Script, client: Driver) -> Any:
    """The connection after a loss."""
    await client.until("db", "status", status="waiting")
    connection = await server.hello()
    await client.until("db", "status", status="live")
    return connection

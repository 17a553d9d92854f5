"""How every scenario begins, and comes back."""

from __future__ import annotations

from typing import Any

from tests.clients.drivers import Driver
from tests.clients.scripted_server import Connection, Script


async def start(server: Script, client: Driver, **options: Any) -> None:
    await client.do("create", url=server.url, **{"tokens": "key", **options})
    await client.next("db", "status", status="connecting")


async def watching(server: Script, client: Driver, **options: Any) -> tuple[Connection, Any]:
    """The connection, and the request, of a client ``w`` that watches posts, at cursor ``c0``."""
    await start(server, client)
    await client.do("watch", "w", collection="posts", options=options)
    connection = await server.hello()
    request = await connection.receive("subscribe")
    await connection.subscribed(request, cursor="c0", scope="s")
    await client.next("w", "ready")
    return connection, request


async def back(server: Script, client: Driver) -> Any:
    """The connection after a loss."""
    await client.until("db", "status", status="waiting")
    connection = await server.hello()
    await client.until("db", "status", status="live")
    return connection

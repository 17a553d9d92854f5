"""Steps with which scenarios begin, and accept a client that reconnects."""

from __future__ import annotations

from typing import Any

from tests.clients.drivers import Driver
from tests.clients.scripted_server import Connection, ScriptedServer


async def start_client(server: ScriptedServer, client: Driver, **options: Any) -> None:
    await client.do("create", url=server.url, **{"tokens": "key", **options})
    await client.expect("db", "status", status="connecting")


async def start_watching(
    server: ScriptedServer, client: Driver, **options: Any
) -> tuple[Connection, Any]:
    """Let ``w`` watch posts from cursor ``c0``. Return its connection and its request."""
    await start_client(server, client)
    await client.do("watch", "w", collection="posts", options=options)
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await client.expect("w", "ready")
    return connection, request


async def accept_reconnect(server: ScriptedServer, client: Driver) -> Any:
    """Return the connection of a client that reconnects after a loss."""
    await client.wait_for("db", "status", status="waiting")
    connection = await server.accept_authenticated()
    await client.wait_for("db", "status", status="live")
    return connection

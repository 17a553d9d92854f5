"""Who one is, and how that is kept up."""

from __future__ import annotations

import asyncio
import time

from tests.clients.drivers import Driver
from tests.clients.scenarios.steps import start
from tests.clients.scripted_server import Script


async def authenticates_first(server: Script, client: Driver) -> None:
    await start(server, client)
    connection = await server.accept()
    auth = await connection.receive("auth")
    assert auth["token"] == "key"
    assert auth["batch"] is True
    await client.do("watch", "w", collection="posts")
    await connection.nothing()  # not before it is let in
    await server.welcome(connection, auth)
    await client.next("db", "status", status="live")
    await connection.receive("subscribe")


async def without_a_token_the_session_counts(server: Script, client: Driver) -> None:
    await start(server, client, tokens=None)
    connection = await server.hello()
    assert "token" not in connection.auth


async def a_refused_credential_ends_it(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.accept()
    await connection.refuse(await connection.receive("auth"), "authentication_failed")
    await connection.close(4500)
    await client.until("db", "status", status="closed", code=4500)
    await client.next("w", "failed", code=4500)
    await asyncio.sleep(0.3)
    assert server.count == 1


async def a_token_is_renewed_before_it_expires(server: Script, client: Driver) -> None:
    await start(server, client, tokens=["first", "second"], timeout=2000)
    soon = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 2))
    connection = await server.hello(expires_at=soon)
    assert connection.auth["token"] == "first"
    auth = await connection.receive("auth")
    assert auth["token"] == "second"
    await server.welcome(connection, auth)
    await client.do("watch", "w", collection="posts")
    await connection.subscribed(await connection.receive("subscribe"), cursor="c0")
    await client.next("w", "ready")
    assert server.count == 1


async def an_expired_token_is_replaced_at_once(server: Script, client: Driver) -> None:
    await start(server, client, tokens=["first", "second"], luck=0.9)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    await connection.close(4110)
    await client.next("db", "status", status="waiting", delay=0)
    connection = await server.hello()
    assert connection.auth["token"] == "second"

"""Authentication: the first frame, refused credentials, tokens that expire."""

from __future__ import annotations

import asyncio
import time

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import start_client
from tests.clients.scripted_server import ScriptedServer


async def auth_is_sent_before_anything_else(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    connection = await server.accept()
    auth = await connection.receive("auth")
    assert auth["token"] == "key"
    assert auth["batch"] is True
    await client.do("watch", "w", collection="posts")
    await connection.receive_nothing()  # nothing is sent before authentication
    await server.authenticate(connection, auth)
    await client.expect("db", "status", status="live")
    await connection.receive("subscribe")


async def auth_without_token_leaves_it_to_the_session(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, tokens=None)
    connection = await server.accept_authenticated()
    assert "token" not in connection.auth


async def refused_credential_closes_the_client(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="posts")
    connection = await server.accept()
    await connection.reply_error(await connection.receive("auth"), "authentication_failed")
    await connection.close(4500)
    await client.wait_for("db", "status", status="closed", code=4500)
    await client.expect("w", "failed", code=4500)
    await asyncio.sleep(0.3)
    assert server.count == 1


async def token_is_renewed_before_it_expires(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client, tokens=["first", "second"], timeout=2000)
    soon = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 2))
    connection = await server.accept_authenticated(expires_at=soon)
    assert connection.auth["token"] == "first"
    auth = await connection.receive("auth")
    assert auth["token"] == "second"
    await server.authenticate(connection, auth)
    await client.do("watch", "w", collection="posts")
    await connection.reply_subscribed(await connection.receive("subscribe"), cursor="c0")
    await client.expect("w", "ready")
    assert server.count == 1


async def expired_token_is_replaced_without_delay(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client, tokens=["first", "second"], random=0.9)
    connection = await server.accept_authenticated()
    await client.expect("db", "status", status="live")
    await connection.close(4110)
    await client.expect("db", "status", status="waiting", delay=0)
    connection = await server.accept_authenticated()
    assert connection.auth["token"] == "second"


async def refused_auth_without_a_close_ends_in_a_new_attempt(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, timeout=1500)
    connection = await server.accept()
    await connection.reply_error(await connection.receive("auth"), "authentication_failed")
    await client.wait_for("db", "status", status="waiting")
    await server.accept_authenticated()


async def token_is_renewed_by_the_clock_of_the_server(
    server: ScriptedServer, client: Driver
) -> None:
    await client.do("sleep", seconds=-3600)
    await start_client(server, client, tokens=["first", "second"], timeout=2000)
    soon = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(time.time() + 2))
    connection = await server.accept_authenticated(expires_at=soon)
    assert (await connection.receive("auth"))["token"] == "second"

"""Close codes, connections that stopped answering, computers that slept."""

from __future__ import annotations

import asyncio
import time

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import start_client
from tests.clients.scripted_server import ScriptedServer


async def terminal_close_code_closes_the_client(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    connection = await server.accept_authenticated()
    await client.expect("db", "status", status="live")
    await client.do("watch", "w", collection="posts")
    await connection.receive("subscribe")
    await connection.close(4505)
    await client.wait_for("db", "status", status="closed", code=4505)
    await client.expect("w", "failed", code=4505)
    await asyncio.sleep(0.3)
    assert server.count == 1


async def reconnect_delay_grows_with_each_loss(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client, random=0.125)
    # full jitter: a random share of 0.5, 1, 2, ... seconds
    for code, delay in ((4100, 0.0625), (1011, 0.125), (4120, 0.25), (4121, 0.5)):
        connection = await server.accept_authenticated()
        await client.expect("db", "status", status="live")
        await connection.close(code, send_closing=code >= 4000)
        note = await client.expect("db", "status", status="waiting")
        assert abs(note["delay"] - delay) < 1e-9, note
        await client.expect("db", "status", status="connecting")


async def close_codes_that_ask_for_an_immediate_reconnect(
    server: ScriptedServer, client: Driver
) -> None:
    for code in (4200, 4201):
        await start_client(server, client, random=0.9)
        connection = await server.accept_authenticated()
        await client.expect("db", "status", status="live")
        await connection.close(code)
        await client.expect("db", "status", status="waiting", delay=0)
        await server.accept_authenticated()
        await client.wait_for("db", "status", status="live")
        await client.do("close")
        await client.wait_for("db", "status", status="closed")


async def reconnect_waits_as_long_as_the_server_asks(
    server: ScriptedServer, client: Driver
) -> None:
    for code, low, high in ((4131, 0.4, 0.65), (4130, 0.4, 0.65), (4200, 0.2, 0.2)):
        await start_client(server, client, random=0.5)
        connection = await server.accept_authenticated()
        await client.expect("db", "status", status="live")
        began = time.monotonic()
        await connection.close(code, 400)
        note = await client.expect("db", "status", status="waiting")
        # not earlier, and not all clients at the same time
        assert low <= note["delay"] <= high + 1e-9, note
        await server.accept_authenticated()
        assert time.monotonic() - began >= low
        await client.wait_for("db", "status", status="live")
        await client.do("close")
        await client.wait_for("db", "status", status="closed")


async def moves_between_servers_do_not_increase_the_delay(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, random=0.9)
    for _ in range(3):
        connection = await server.accept_authenticated()
        await client.wait_for("db", "status", status="live")
        await connection.close(4200, 200)
        note = await client.expect("db", "status", status="waiting")
        assert abs(note["delay"] - 0.18) < 1e-9, note
    # a server that closes each connection before it is authenticated
    for delay in (0.9, 1.8):
        connection = await server.accept()
        await connection.close(4200)
        note = await client.wait_for("db", "status", status="waiting")
        assert abs(note["delay"] - delay) < 1e-9, note


async def reconnect_waits_five_seconds_when_database_is_unavailable(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, random=0.5)
    connection = await server.accept_authenticated()
    await client.expect("db", "status", status="live")
    await connection.close(4101)
    note = await client.expect("db", "status", status="waiting")
    assert 5 <= note["delay"] <= 5.5


async def closing_frame_is_used_when_close_code_is_lost(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    connection = await server.accept_authenticated()
    await client.expect("db", "status", status="live")
    closing = {"type": "closing", "code": 4500, "reason": "Revoked.", "retry_after_ms": None}
    await connection.send(closing)
    await asyncio.sleep(0.5)
    connection.abort()
    await client.wait_for("db", "status", status="closed", code=4500)


async def unanswered_pings_cause_a_reconnect(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client, timeout=2000)
    connection = await server.accept_authenticated(heartbeat=1)
    await client.expect("db", "status", status="live")
    while connection.pings < 2:
        await asyncio.sleep(0.05)
    connection.ignores_pings = True
    await client.expect("db", "status", status="waiting")
    await server.accept_authenticated()
    await client.wait_for("db", "status", status="live")


async def unanswered_auth_causes_a_reconnect(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client, timeout=1500)
    connection = await server.accept()
    await connection.receive("auth")
    await client.wait_for("db", "status", status="waiting")
    await server.accept_authenticated()


async def connection_is_checked_right_after_sleep(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client, timeout=2000)
    connection = await server.accept_authenticated()
    await client.expect("db", "status", status="live")
    while not connection.pings:
        await asyncio.sleep(0.05)
    pings = connection.pings
    await client.do("sleep", seconds=3600)
    async with asyncio.timeout(10):  # the next regular ping would be 25 s away
        while connection.pings == pings:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    assert server.count == 1  # the connection was still alive
    connection.ignores_pings = True
    await client.do("sleep", seconds=3600)
    await client.expect("db", "status", status="waiting")
    await server.accept_authenticated()


async def ping_unanswered_before_sleep_is_sent_again_after_it(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, timeout=2000)
    connection = await server.accept_authenticated(heartbeat=1)
    await client.expect("db", "status", status="live")
    connection.ignores_pings = True
    while not connection.pings:
        await asyncio.sleep(0.02)
    pings = connection.pings  # not answered before the computer sleeps
    await client.do("sleep", seconds=3600)
    async with asyncio.timeout(10):
        while connection.pings == pings:
            await asyncio.sleep(0.02)
    await connection.send({"type": "pong"})
    connection.ignores_pings = False
    await client.expect_nothing("db", 1.5)
    assert server.count == 1


async def dead_connection_is_noticed_after_clock_is_set_back(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, timeout=2000)
    connection = await server.accept_authenticated()
    await client.wait_for("db", "status", status="live")
    async with asyncio.timeout(10):
        while not connection.pings:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    connection.ignores_pings = True
    await client.do("sleep", seconds=-3600)
    await client.wait_for("db", "status", status="waiting")
    await client.do("sleep", seconds=-3600)  # the delay does not become an hour either
    await server.accept_authenticated()
    await client.wait_for("db", "status", status="live")


async def error_without_request_id_is_reported(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    connection = await server.accept_authenticated()
    await connection.send({"type": "error", "code": "too_large", "message": "No."})
    await client.wait_for("db", "error", code="too_large")
    await connection.send({"type": "unknown type"}, {"type": "event", "event": "?"})
    await client.do("watch", "w", collection="posts")
    await connection.reply_subscribed(await connection.receive("subscribe"), cursor="c0")
    await client.expect("w", "ready")


async def closed_client_does_not_reconnect(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    connection = await server.accept_authenticated()
    await client.expect("db", "status", status="live")
    await client.do("close")
    await asyncio.wait_for(connection.closed.wait(), 10)
    await client.expect("db", "status", status="closed")
    await asyncio.sleep(0.3)
    assert server.count == 1


async def server_that_accepts_but_does_not_answer_is_reported(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, timeout=1500)
    await server.accept()
    await client.wait_for("errors", "error", code="not_connected", origin="connection")
    for _ in range(2):  # once, until it authenticates
        await server.accept()
    await client.expect_nothing("errors")


async def clock_set_back_while_connecting_does_not_extend_the_timeout(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, timeout=1500)
    connection = await server.accept()
    await connection.receive("auth")
    await client.do("sleep", seconds=-3600)
    await client.wait_for("db", "status", status="waiting")
    await server.accept_authenticated()


async def clock_set_back_while_waiting_does_not_extend_the_delay(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, random=0.9)
    connection = await server.accept_authenticated()
    await client.wait_for("db", "status", status="live")
    connection.abort()
    await client.wait_for("db", "status", status="waiting")
    await client.do("sleep", seconds=-3600)
    await server.accept_authenticated()

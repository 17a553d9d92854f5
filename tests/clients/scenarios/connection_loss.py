"""Close codes, dead lines, sleep."""

from __future__ import annotations

import asyncio
import time

from tests.clients.drivers import Driver
from tests.clients.scenarios.steps import start
from tests.clients.scripted_server import Script


async def terminal_codes_end_it(server: Script, client: Driver) -> None:
    await start(server, client)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    await client.do("watch", "w", collection="posts")
    await connection.receive("subscribe")
    await connection.close(4505)
    await client.until("db", "status", status="closed", code=4505)
    await client.next("w", "failed", code=4505)
    await asyncio.sleep(0.3)
    assert server.count == 1


async def losses_back_off(server: Script, client: Driver) -> None:
    await start(server, client, luck=0.125)
    # full jitter: a share of 0.5, 1, 2, ... seconds
    for code, delay in ((4100, 0.0625), (1011, 0.125), (4120, 0.25), (4121, 0.5)):
        connection = await server.hello()
        await client.next("db", "status", status="live")
        await connection.close(code, say=code >= 4000)
        note = await client.next("db", "status", status="waiting")
        assert abs(note["delay"] - delay) < 1e-9, note
        await client.next("db", "status", status="connecting")


async def some_codes_bring_it_back_at_once(server: Script, client: Driver) -> None:
    for code in (4200, 4201):
        await start(server, client, luck=0.9)
        connection = await server.hello()
        await client.next("db", "status", status="live")
        await connection.close(code)
        await client.next("db", "status", status="waiting", delay=0)
        await server.hello()
        await client.until("db", "status", status="live")
        await client.do("close")
        await client.until("db", "status", status="closed")


async def the_server_says_when(server: Script, client: Driver) -> None:
    for code, low, high in ((4131, 0.4, 0.65), (4130, 0.4, 0.65), (4200, 0.2, 0.2)):
        await start(server, client, luck=0.5)
        connection = await server.hello()
        await client.next("db", "status", status="live")
        began = time.monotonic()
        await connection.close(code, 400)
        note = await client.next("db", "status", status="waiting")
        # not before, and not all at the same time; a draining server wants them spread
        assert low <= note["delay"] <= high + 1e-9, note
        await server.hello()
        assert time.monotonic() - began >= low
        await client.until("db", "status", status="live")
        await client.do("close")
        await client.until("db", "status", status="closed")


async def an_unavailable_database_gets_five_seconds(server: Script, client: Driver) -> None:
    await start(server, client, luck=0.5)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    await connection.close(4101)
    note = await client.next("db", "status", status="waiting")
    assert 5 <= note["delay"] <= 5.5


async def a_closing_frame_counts_where_the_code_is_lost(server: Script, client: Driver) -> None:
    await start(server, client)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    closing = {"type": "closing", "code": 4500, "reason": "Revoked.", "retry_after_ms": None}
    await connection.send(closing)
    await asyncio.sleep(0.5)
    connection.cut()
    await client.until("db", "status", status="closed", code=4500)


async def a_dead_line_is_noticed(server: Script, client: Driver) -> None:
    await start(server, client, timeout=2000)
    connection = await server.hello(heartbeat=1)
    await client.next("db", "status", status="live")
    while connection.pings < 2:
        await asyncio.sleep(0.05)
    connection.mute = True
    await client.next("db", "status", status="waiting")
    await server.hello()
    await client.until("db", "status", status="live")


async def a_server_that_accepts_and_is_silent(server: Script, client: Driver) -> None:
    await start(server, client, timeout=1500)
    connection = await server.accept()
    await connection.receive("auth")
    await client.next("db", "status", status="waiting")
    await server.hello()


async def a_sleep_is_noticed_at_once(server: Script, client: Driver) -> None:
    await start(server, client, timeout=2000)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    while not connection.pings:
        await asyncio.sleep(0.05)
    pings = connection.pings
    await client.do("sleep", seconds=3600)
    async with asyncio.timeout(10):  # the next beat would be 25 s away
        while connection.pings == pings:
            await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    assert server.count == 1  # the line was alive after all
    connection.mute = True
    await client.do("sleep", seconds=3600)
    await client.next("db", "status", status="waiting")
    await server.hello()


async def time_asleep_is_not_held_against_the_line(server: Script, client: Driver) -> None:
    await start(server, client, timeout=2000)
    connection = await server.hello(heartbeat=1)
    await client.next("db", "status", status="live")
    connection.mute = True
    while not connection.pings:
        await asyncio.sleep(0.02)
    pings = connection.pings  # which is not answered before the lid is shut
    await client.do("sleep", seconds=3600)
    async with asyncio.timeout(10):
        while connection.pings == pings:
            await asyncio.sleep(0.02)
    await connection.send({"type": "pong"})
    connection.mute = False
    await client.nothing("db", 1.5)
    assert server.count == 1


async def a_clock_that_is_set_back_hides_no_dead_line(server: Script, client: Driver) -> None:
    await start(server, client, timeout=1000)
    connection = await server.hello()
    await client.until("db", "status", status="live")
    async with asyncio.timeout(10):
        while not connection.pings:
            await asyncio.sleep(0.02)
    await asyncio.sleep(0.3)
    connection.mute = True
    await client.do("sleep", seconds=-3600)
    await client.until("db", "status", status="waiting")
    await client.do("sleep", seconds=-3600)  # nor does anybody wait for an hour
    await server.hello()
    await client.until("db", "status", status="live")


async def errors_of_nobody_are_told(server: Script, client: Driver) -> None:
    await start(server, client)
    connection = await server.hello()
    await connection.send({"type": "error", "code": "too_large", "message": "No."})
    await client.until("db", "error", code="too_large")
    await connection.send({"type": "news from the future"}, {"type": "event", "event": "?"})
    await client.do("watch", "w", collection="posts")
    await connection.subscribed(await connection.receive("subscribe"), cursor="c0")
    await client.next("w", "ready")


async def closing_is_final(server: Script, client: Driver) -> None:
    await start(server, client)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    await client.do("close")
    await asyncio.wait_for(connection.over.wait(), 10)
    await client.next("db", "status", status="closed")
    await asyncio.sleep(0.3)
    assert server.count == 1

"""The JavaScript client in Node 20 and 22, with Node's own WebSocket and with the package ws."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import serve

from tests.clients.platforms.runtime import Program, Runtime, find_node
from tests.clients.scripted_server import ScriptedServer, broadcast_event
from tests.support.servers import free_port

pytestmark = pytest.mark.timeout(250)  # the first test of a machine downloads Node

RUNTIMES = [
    Runtime(20, ws=False),
    Runtime(20, ws=True),
    Runtime(22, ws=False),
    Runtime(22, ws=True),
]


@pytest.fixture(params=RUNTIMES, ids=str)
def runtime(request):
    return request.param


async def start(runtime, port):
    """Return a program whose client connects to this port."""
    command, ws = await asyncio.to_thread(lambda: (runtime.command(), runtime.websocket()))
    return Program(command, f"ws://127.0.0.1:{port}/realtime", ws)


async def accept(server):
    """Authenticate the program's client, answer what it asks for, and return the subscription."""
    connection = await server.accept_authenticated()
    subscription = await connection.receive("subscribe")
    is_resumed = "since" in subscription
    await connection.reply_subscribed(subscription, scope="s", resumed=is_resumed)
    if not is_resumed:
        await connection.send_window(subscription, (0, "1", {"n": 1}), reset=True, cursor="c1")
    return connection, subscription


async def answer_others(connection):
    """Refuse the subscription that the program does not await, and let it join its room."""
    await connection.reply_error(await connection.receive("subscribe"), "unknown_collection")
    join = await connection.receive("join")
    await connection.reply(join, "joined", room="news", members=[], participants=1)


@asynccontextmanager
async def refuse_handshakes(port):
    """Answer each handshake with HTTP status 403."""

    async def never(socket):
        raise AssertionError

    def refuse(connection, request):
        return connection.respond(403, "No.\n")

    async with serve(never, "127.0.0.1", port, process_request=refuse):
        yield


async def test_live_list_and_room_until_the_client_is_closed(runtime):
    async with ScriptedServer() as server, await start(runtime, server.port) as program:
        connection, subscription = await accept(server)
        await answer_others(connection)
        await program.expect_status("live")
        await program.wait_for("posts", "documents", ids=["1"])
        await program.expect("db", "error", code="unknown_collection")
        await connection.send_window(subscription, (0, "2", {"n": 0}), cursor="c2")
        await connection.send(broadcast_event("news", "hi"))
        await program.expect("posts", "documents", ids=["2", "1"])
        await program.expect("room", "message", message="hi")
        program.close()
        await program.expect_status("closed")
        await program.expect_exit()
        await asyncio.wait_for(connection.closed.wait(), 2)


async def test_server_that_is_not_there_at_first(runtime):
    port = free_port()
    async with await start(runtime, port) as program:
        for _ in range(2):
            await program.expect_status("connecting")
            await program.expect_status("waiting")
        async with ScriptedServer(port) as server:
            await accept(server)
            await program.expect_status("live")
            await program.wait_for("posts", "documents", ids=["1"])


async def test_handshake_refused_with_403(runtime):
    port = free_port()
    async with await start(runtime, port) as program:
        async with refuse_handshakes(port):
            for _ in range(2):
                await program.expect_status("connecting")
                await program.expect_status("waiting")
        async with ScriptedServer(port) as server:
            await accept(server)
            await program.expect_status("live")


async def test_server_that_is_restarted(runtime):
    port = free_port()
    async with await start(runtime, port) as program:
        async with ScriptedServer(port) as server:
            connection, subscription = await accept(server)
            await answer_others(connection)
            await program.wait_for("posts", "documents", ids=["1"])
            connection.abort()
        await program.expect_status("waiting")
        async with ScriptedServer(port) as server:
            connection, subscription = await accept(server)
            assert subscription["since"] == "c1"
            await connection.send_window(subscription, (1, "2", {"n": 2}), cursor="c2")
            await program.wait_for("posts", "documents", ids=["1", "2"])


async def test_close_while_the_client_waits_for_a_server(runtime):
    async with await start(runtime, free_port()) as program:
        await program.expect_status("waiting")
        program.close()
        await program.expect_exit()


async def test_close_during_the_handshake(runtime):
    accepted = asyncio.Event()

    async def stay_silent(reader, writer):
        accepted.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(stay_silent, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with await start(runtime, port) as program:
            await asyncio.wait_for(accepted.wait(), 5)
            program.close()
            await program.expect_status("closed")
            await program.expect_exit()


async def test_node_without_a_websocket_is_an_error_event():
    command = await asyncio.to_thread(lambda: [find_node(20), "--no-warnings"])
    async with Program(command, "ws://127.0.0.1:9/realtime", None) as program:
        await program.expect("program", "started", WebSocket="undefined")
        report = await program.wait_for("db", "error", code="not_connected")
        assert "WebSocket" in report["message"]
        program.close()
        await program.expect_exit()

"""Clients without a credential that send messages which become large when decompressed."""

import asyncio
import contextlib
import zlib

import pytest

from tests.e2e.test_attacks import resident_mib
from tests.support.client import connect
from tests.support.servers import SERVERS, AsgiServer, other_servers
from tests.support.threads import call

pytestmark = [pytest.mark.server, pytest.mark.django_db(transaction=True)]

SOCKETS = 5
BOMB_BYTES = 9 * 1024 * 1024
# what one message becomes; uvicorn accepts 16 MiB by default
INFLATED_BYTES = 15 * 1024 * 1024
# what the server may need for all of them together
MAX_GROWTH_MIB = 100
WITHOUT_LIMITS = ("--ws-max-size", "1048576", "--ws-per-message-deflate", "false")


def make_frame(payload, opcode=0x1, compressed=True):
    """Return a masked frame, with a mask of zeros."""
    head = bytes([0x80 | (0x40 if compressed else 0) | opcode])
    return head + b"\xff" + len(payload).to_bytes(8, "big") + bytes(4) + payload


def make_bomb():
    compressor = zlib.compressobj(9, zlib.DEFLATED, -12)
    zeros = b"0" * INFLATED_BYTES
    data = compressor.compress(zeros) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return make_frame(data.removesuffix(b"\x00\x00\xff\xff"))


async def send_bomb(port, frame):
    """Offer compression, and send compressed frames whatever the server answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /realtime HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    )
    accepted = b"permessage-deflate" in await reader.readuntil(b"\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(BOMB_BYTES // len(frame)):
            writer.write(frame)
            await writer.drain()
        await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return accepted


async def measure_growth(server, frame):
    """Return by how many MiB the server grows, and whether it accepted compression."""
    before = highest = resident_mib(server)
    bombs = asyncio.gather(*(send_bomb(server.port, frame) for _ in range(SOCKETS)))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            while not bombs.done():
                await asyncio.wait({bombs}, timeout=0.02)
                highest = max(highest, resident_mib(server))
    bombs.cancel()
    results = await asyncio.gather(bombs, return_exceptions=True)
    return highest - before, results


@pytest.mark.parametrize("kind", [*SERVERS, *other_servers("hypercorn")])
async def test_bombs_do_not_fill_the_memory_of_a_documented_server(serve, api_key, kind):
    server = await asyncio.to_thread(serve, kind)
    async with connect(server.socket_url, api_key) as client:
        growth, results = await measure_growth(server, make_bomb())
        assert growth < MAX_GROWTH_MIB
        assert results == [[False] * SOCKETS]
        assert (await client.request({"type": "ping"}))["type"] == "pong"
    assert "fill the memory" not in server.log.read_text()


@pytest.mark.parametrize("kind", [*SERVERS, *other_servers("hypercorn")])
async def test_large_messages_do_not_fill_the_memory_of_a_documented_server(serve, api_key, kind):
    server = await asyncio.to_thread(serve, kind)
    frame = make_frame(b"0" * (BOMB_BYTES - 100), compressed=False)
    growth, _ = await measure_growth(server, frame)
    assert growth < MAX_GROWTH_MIB


@pytest.fixture
def start():
    servers = []

    def start(kind, *options, without=()):
        """Start a server without parts of its command, but with these options."""
        server = AsgiServer(kind)
        server.command = [part for part in server.command if part not in without]
        server.command[-1:-1] = options
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


async def warnings_of(server, api_key):
    for _ in range(2):
        async with connect(server.socket_url, api_key):
            pass
    return [line for line in server.log.read_text().splitlines() if "fill the memory" in line]


@pytest.mark.parametrize("implementation", ["websockets-sansio", "websockets", "wsproto"])
async def test_uvicorn_without_limits_is_reported_once(start, api_key, implementation):
    server = await call(lambda: start("uvicorn", "--ws", implementation, without=WITHOUT_LIMITS))
    warnings = await warnings_of(server, api_key)
    assert len(warnings) == 2
    assert "--ws-per-message-deflate false" in warnings[0]
    assert "--ws-max-size 1048576" in warnings[1]
    assert "W056" in warnings[0]


async def test_uvicorn_with_one_of_the_limits_is_reported_for_the_other(start, api_key):
    options = ("--ws-per-message-deflate", "false")
    server = await call(lambda: start("uvicorn", *options, without=WITHOUT_LIMITS))
    (warning,) = await warnings_of(server, api_key)
    assert "--ws-max-size" in warning


@pytest.mark.parametrize(
    ("kind", "options", "advice"),
    other_servers(
        (
            "gunicorn",
            ["--worker-class", "uvicorn_worker.UvicornWorker"],
            ["ws_per_message_deflate to False in CONFIG_KWARGS", "ws_max_size in CONFIG_KWARGS"],
        ),
        ("granian", [], ["granian accepts messages of 64 MiB"]),
    ),
)
async def test_other_servers_without_limits_are_reported(start, api_key, kind, options, advice):
    server = await call(lambda: start(kind, *options))
    warnings = await warnings_of(server, api_key)
    assert len(warnings) == len(advice)
    assert all(text in line for text, line in zip(advice, warnings, strict=True))

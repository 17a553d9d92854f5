"""Clients that make the server hold, or send, more bytes than it should."""

import asyncio
import base64
import json
import os
import zlib

import pytest

from tests.support.narrow_sockets import open_narrow_socket
from tests.support.threads import call

from .helpers import ATTACKER, PeakMemory, attack, connect, slowest_login

pytestmark = pytest.mark.server
LARGE = {"event_bytes": 1_000_000, "queue_bytes": 1_048_576}
# most that the server may grow for one client; what waits for it is limited to 2 MiB
GROWTH_MIB = 24
RECEIVE_BUFFER_BYTES = 4096


def bomb(expanded):
    """Return a compressed text of so many zeros, as the payload of a frame."""
    compressor = zlib.compressobj(9, wbits=-15)
    data = compressor.compress(b"0" * expanded) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return data[:-4]


async def send_bomb(port, payload, fragments=1):
    """Offer compression, and send a compressed frame, whether the server accepted it or not."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=ATTACKER)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /realtime HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: Upgrade\r\n"
        f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode()
    )
    await reader.readuntil(b"\r\n\r\n")
    size = -(-len(payload) // fragments)
    try:
        for number in range(fragments):
            part = payload[number * size : (number + 1) * size]
            opcode = 0x41 if number == 0 else 0
            final = 0x80 if number == fragments - 1 else 0
            head = bytes((final | opcode, 0x80 | 127)) + len(part).to_bytes(8, "big")
            writer.write(head + b"\0\0\0\0" + part)
            await writer.drain()
        async with asyncio.timeout(3):
            while await reader.read(65536):
                pass
    except (OSError, TimeoutError):
        pass
    finally:
        writer.close()


@pytest.mark.parametrize("fragments", [1, 20])
async def test_compressed_frames_do_not_fill_the_memory(start, api_key, fragments):
    """Five strangers send 60 MB of zeros each, in a frame of 60 kB or in fragments."""
    server = await start()
    payload = bomb(60_000_000)
    await slowest_login(server.socket_url, api_key, 1)
    peak = PeakMemory(server)
    await asyncio.gather(*(send_bomb(server.port, payload, fragments) for _ in range(5)))
    assert peak.stop() < 60
    assert await slowest_login(server.socket_url, api_key, 1) < 5


async def test_batch_larger_than_a_frame_of_the_server_is_split(start, api_key):
    """daphne sends no frame above 1 MiB, and drops it silently."""
    server = await start(LIMITS={**LARGE, "queue_bytes": 8_000_000})
    async with attack(server.socket_url) as client:
        await client.send({"type": "auth", "token": api_key, "batch": True})
        await client.receive("authenticated")
        await client.subscribe("posts")
        posts = [{"title": str(n), "body": "x" * 100_000} for n in range(15)]
        await call(server.post, "/posts", posts)
        await call(server.post, "/posts", [{"title": "last"}])
        titles = []
        while "last" not in titles:
            frame = await client.receive()
            events = frame["events"] if frame["type"] == "events" else [frame]
            titles += [event["document"]["data"]["title"] for event in events]
        assert titles == [*(str(n) for n in range(15)), "last"]


async def test_snapshot_larger_than_a_frame_of_the_server_is_split(start, api_key):
    server = await start(LIMITS=LARGE)
    posts = [{"title": str(n), "body": "é" * 100_000} for n in range(10)]
    await call(server.post, "/posts", json.dumps(posts, ensure_ascii=False))
    async with attack(server.socket_url, api_key) as client:
        await client.send({"type": "subscribe", "collection": "posts", "snapshot": True})
        await client.receive("subscribed")
        documents, more = [], True
        while more:
            frame = await client.receive("snapshot")
            documents += frame["documents"]
            more = frame["more"]
        assert len(documents) == 10
        assert (await client.request({"type": "ping", "id": 1}))["type"] == "pong"


async def test_text_outside_of_ascii_is_counted_in_bytes(start, api_key):
    """A client that does not read is disconnected when 1 MiB waits, not 1 Mi characters."""
    server = await start(LIMITS={"event_bytes": 1_000_000})
    async with stalled(server, api_key) as client:
        await client.subscribe("posts")
        await call(server.post, "/posts", [{"title": "warm", "body": "é" * 100_000}])
        client.socket.transport.pause_reading()
        peak = PeakMemory(server)
        for number in range(60):
            body = [{"title": str(number), "body": "\U0001f600" * 60_000}]
            await call(server.post, "/posts", body)
        assert peak.stop() < GROWTH_MIB
        client.socket.transport.resume_reading()
        assert await client.closed(20) == 4120


def stalled(server, token):
    """Connect with a small receive buffer."""
    return attack(
        server.socket_url,
        token,
        max_queue=1,
        sock=open_narrow_socket(server.port, RECEIVE_BUFFER_BYTES),
    )


@pytest.mark.parametrize("asks", ["snapshot", "since"])
async def test_client_that_asks_for_much_and_reads_nothing_is_bounded(start, api_key, asks):
    """30 subscriptions, each to more than the queue holds."""
    server = await start(LIMITS={"subscriptions": 100})
    async with connect(server.socket_url, api_key) as first:
        reply = await first.subscribe("posts")
    posts = [{"title": str(n), "body": "x" * 20_000} for n in range(100)]
    for _ in range(2):
        await call(server.post, "/posts", posts)
    more = {"snapshot": True}
    if asks == "since":
        more = {"since": reply["cursor"], "scope": reply["scope"]}
    frame = {"type": "subscribe", "collection": "posts", **more}
    async with attack(server.socket_url, api_key) as warm:  # reads one answer
        await warm.send(frame)
        await warm.receive("subscribed")
        await warm.receive()
    async with stalled(server, api_key) as client:
        client.socket.transport.pause_reading()
        peak = PeakMemory(server)
        for number in range(30):
            await client.send({**frame, "subscription": f"s{number}"})
        await asyncio.sleep(3)
        assert peak.stop() < GROWTH_MIB
        assert await slowest_login(server.socket_url, api_key, 1) < 5
        client.socket.transport.resume_reading()  # it is served, or closed with a code
        frame = json.loads(await asyncio.wait_for(client.socket.recv(), 10))
        assert frame["type"] in ("subscribed", "closing")


async def test_room_history_of_a_client_that_reads_nothing_is_bounded(start, api_key):
    server = await start(ROOMS={"kept-*": {"history": 1000}}, LIMITS={"broadcast_rate": (900, 900)})
    async with connect(server.socket_url, api_key) as writer:
        await writer.send({"type": "join", "room": "kept-1"})
        await writer.receive("joined")
        for number in range(200):
            message = {"n": number, "text": "x" * 60_000}
            await writer.send({"type": "broadcast", "room": "kept-1", "message": message, "id": 1})
            while (await writer.receive())["type"] != "sent":
                pass
    join = {"type": "join", "room": "kept-1", "history": 1000}
    async with stalled(server, api_key) as client:
        client.socket.transport.pause_reading()
        peak = PeakMemory(server)
        for _ in range(10):
            await client.send(join)
        await asyncio.sleep(2)
        assert peak.stop() < GROWTH_MIB
        assert await slowest_login(server.socket_url, api_key, 1) < 5

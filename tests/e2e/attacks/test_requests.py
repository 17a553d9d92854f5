"""Requests that cost much, arrive at a bad moment, or are too many."""

import asyncio
import json
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from django.db import connection, connections

from django_cocobase_realtime.models import ApiKey
from tests.support.threads import call

from .helpers import attack, connect, receive_answers, slowest_login

pytestmark = pytest.mark.server
# all multiples of it have the same hash in CPython
HASH_MODULUS = 2**61 - 1
HUGE = [
    str(10**40),
    str(-(10**40)),
    str(2**63),
    2**53,
    1e308,
    -1e308,
    5e-324,
    "1e999",
    "9" * 4000,
    "-0",
    "٣",
]
TEXTS = ["", "x" * 60_000, "\uffff" * 9]
EXTREME = [*HUGE, *TEXTS, True, [], [[]], [1] * 100, {"in": ["9" * 600] * 99}]
FIELDS = [
    *("big", "boolean", "char", "date", "moment", "decimal", "duration", "float", "integer"),
    *("ip", "json", "json.a", "positive", "small", "text", "time", "uuid", "id", "pk"),
]
OPERATORS = ["eq", "ne", "gt", "lte", "in", "between", "contains", "startswith", "isnull"]


async def test_extreme_filters_are_answered_and_slow_nothing(start, api_key):
    server = await start(
        COLLECTIONS={"everything": "app.Everything", "posts": "app.Post"},
        LIMITS={"subscribe_rate": (10_000, 10_000), "bad_requests_per_minute": 10_000},
    )
    filters = [{f: {o: v}} for f in FIELDS for o in OPERATORS for v in EXTREME][::10]
    filters += [{"$not": f} for f in filters[::20]]
    async with attack(server.socket_url, api_key, max_queue=None) as client:
        await client.subscribe("posts")
        for number, tree in enumerate(filters):
            frame = {"type": "subscribe", "collection": "everything", "filters": tree}
            more = {"subscription": "one", "id": number, "snapshot": {"limit": 1}}
            await client.send({**frame, **more})
        answers = await receive_answers(client, len(filters), 60)
        assert [answer["id"] for answer in answers] == list(range(len(filters)))
        codes = {answer.get("code") for answer in answers}
        assert codes <= {None, "invalid_filter", "bad_request", "too_large"}, codes
        await call(server.post, "/posts", [{"title": "after"}])
        while (frame := await client.receive())["type"] != "event":
            pass
        assert frame["document"]["data"]["title"] == "after"


async def test_values_with_equal_hashes_delay_no_event(start, api_key):
    server = await start()
    async with (
        connect(server.socket_url, api_key) as visitor,
        attack(server.socket_url, api_key, max_queue=None) as client,
    ):
        await visitor.subscribe("posts")
        for n in range(24):
            first = 1 + 1600 * n
            groups = [range(first + 100 * k, first + 100 * (k + 1)) for k in range(16)]
            values = [[str(v * HASH_MODULUS) for v in group] for group in groups]
            filters = {"$or": [{"views": {"in": group}} for group in values]}
            frame = {"type": "subscribe", "collection": "posts", "subscription": f"s{n}"}
            await client.send({**frame, "filters": filters, "id": n})
        await receive_answers(client, 24, 60)
        began = time.monotonic()
        for n in range(10):
            await call(server.post, "/posts", [{"title": str(n), "views": n}])
            await visitor.receive("event")
        assert time.monotonic() - began < 4


@pytest.mark.skipif(connection.vendor != "sqlite", reason="Moves SQLite's file away.")
@pytest.mark.parametrize("pipelined", [True, False])
async def test_client_that_connects_during_an_outage_may_come_back(
    start, api_key, monkeypatch, pipelined
):
    """The same code whether it waited for ``authenticated`` or not."""
    folder = Path(tempfile.mkdtemp())
    name = folder / "link.sqlite3"
    name.symlink_to(connections["default"].settings_dict["NAME"])
    with monkeypatch.context() as patched:
        patched.setitem(connections["default"].settings_dict, "NAME", str(name))
        server = await start()
    await slowest_login(server.socket_url, api_key, 1)
    _, fresh = await call(lambda: ApiKey.objects.create_key("not seen before"))
    shutil.rmtree(folder)
    async with attack(server.socket_url) as client:
        await client.send({"type": "auth", "token": fresh, "id": 1})
        if pipelined:
            await client.send({"type": "subscribe", "collection": "posts", "id": 2})
            await client.send({"type": "join", "room": "r", "id": 3})
        assert await client.closed() == 4101
    folder.mkdir()
    name.symlink_to(connections["default"].settings_dict["NAME"])
    assert await slowest_login(server.socket_url, fresh, 1) < 5
    shutil.rmtree(folder)
    log = server.log.read_text()  # an outage is logged without tracebacks, or with them
    server.log.write_text(log.replace("Traceback", "During the outage"))


def get_rooms(server, key):
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.port}/realtime/rooms", headers={"X-API-Key": key}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            json.loads(response.read())
            return response.status, response.headers
    except urllib.error.HTTPError as error:
        error.read()
        return error.code, error.headers


async def test_flood_of_http_requests_is_limited_and_delays_no_login(start, api_key):
    server = await start(LIMITS={"http_rate": (1, 5)})  # the machine may be slow
    statuses = Counter()
    over = asyncio.Event()

    async def flood(key):
        while not over.is_set():
            status, headers = await call(get_rooms, server, key)
            statuses[status] += 1
            if status == 429:
                assert int(headers["Retry-After"]) >= 1

    floods = [asyncio.create_task(flood(key)) for key in (api_key, api_key, "crk_wrong_key")]
    try:
        await asyncio.sleep(2)
        assert await slowest_login(server.socket_url, api_key) < 2
    finally:
        over.set()
        await asyncio.gather(*floods)
    assert set(statuses) <= {200, 401, 429}
    assert statuses[200] > 0
    assert statuses[429] > 0, statuses


async def test_garbage_of_strangers_disturbs_no_client(start, api_key):
    """Bytes that are no frames, broken handshakes, and half a request that never ends."""
    server = await start()
    handshake = (
        f"GET /realtime HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: Upgrade\r\n"
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: eHh4eHh4eHh4eHh4eHh4eA==\r\n\r\n"
    ).encode()
    # unmasked, of reserved opcodes, with a length of 2^63 - 1, a close frame of one byte, bad UTF-8
    frames = [
        b"\x81\x04ping",
        b"\x83\x80\0\0\0\0",
        b"\x81\xff\x7f" + b"\xff" * 7 + b"\0" * 4,
        b"\x88\x81\0\0\0\0\x03",
        b"\x81\x82\0\0\0\0\xff\xfe",
        b"\xf1\x80\0\0\0\0",
        b"\x89\xfe\x00\xff\0\0\0\0" + b"x" * 255,
        b"\x00\x80\0\0\0\0",
    ]
    data = [handshake + frame for frame in frames]
    data += [handshake[:-2], b"\0" * 5000, b"GET /" + b"a" * 70_000, handshake.replace(b"13", b"8")]
    writers = []
    async with connect(server.socket_url, api_key) as client:
        await client.subscribe("posts")
        for garbage in data * 2:
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(garbage)
            writers.append(writer)
        await asyncio.sleep(0.5)
        await call(server.post, "/posts", [{"title": "after"}])
        assert (await client.receive("event"))["document"]["data"]["title"] == "after"
        for writer in writers:
            writer.transport.abort()
        assert await slowest_login(server.socket_url, api_key, 1) < 5

"""A client that stops reading takes little memory, whatever it has requested."""

import asyncio
import json
import tracemalloc
from contextlib import asynccontextmanager

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime import abroadcast
from django_cocobase_realtime.events import Broadcast, encode, now
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.log.cursor import Position
from django_cocobase_realtime.models import RoomMessage, RoomStream
from django_cocobase_realtime.presence import base as presence_base
from django_cocobase_realtime.presence.base import PresenceEntry, get_backend
from django_cocobase_realtime.rooms import history
from django_cocobase_realtime.wire.codes import CloseCode
from django_cocobase_realtime.wire.frames import MAX_FRAME_BYTES
from tests.app.models import Post
from tests.support.sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)
MAX_BYTES = 2 * 1024 * 1024  # that may wait for one connection
# that may be allocated in all, by the server's caches and by the test, too
MAX_ALLOCATED = 8 * 1024 * 1024
SUBSCRIPTIONS = 30
DOCUMENTS, BODY = 150, "x" * 20_000


class Waiting:
    """Measures the bytes that wait for a connection, until `stop`."""

    def __init__(self):
        (connection,) = Hub.current().connections.values()
        self.connection, self.highest, self.peak = connection, 0, 0
        tracemalloc.start()
        self.task = asyncio.create_task(self.measure())

    async def measure(self):
        while True:
            self.highest = max(self.highest, self.connection.writer.waiting_bytes)
            await asyncio.sleep(0.002)

    def stop(self):
        self.task.cancel()
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


@asynccontextmanager
async def stalled_client(token):
    """Open a connection that has sent a frame which the client does not read."""
    async with open_socket(token=token) as socket:
        socket.reading.clear()
        await socket.send_frame(type="ping")
        await socket.wait_for_frame("pong")
        waiting = Waiting()
        yield socket, waiting
        if waiting.peak == 0:
            waiting.stop()


async def read_a_little(socket):
    """Read a few frames, so that the server reads more pages, and stop again."""
    for _ in range(10):
        await asyncio.sleep(0.05)
        count = len(socket.sent)
        socket.stops_reading_at = lambda frame, count=count: len(socket.sent) > count + 1
        socket.reading.set()
    await asyncio.sleep(0.3)


def assert_bounded(waiting):
    waiting.stop()
    assert waiting.highest <= MAX_BYTES
    assert waiting.peak <= MAX_ALLOCATED


def assert_frames_are_small(socket):
    texts = [message["text"] for message in socket.sent if "text" in message]
    assert max(len(text.encode()) for text in texts) <= MAX_FRAME_BYTES + 1000


async def create_posts():
    await Post.objects.abulk_create(
        [Post(title=str(number), body=BODY) for number in range(DOCUMENTS)]
    )


async def test_many_replays(api_key):
    async with open_socket(token=api_key) as socket:
        await socket.send_frame(type="subscribe", collection="posts")
        await socket.wait_for_frame("subscribed")
        cursor = socket.frames_of_type("subscribed")[0]["cursor"]
    for number in range(DOCUMENTS):
        await Post.objects.acreate(title=str(number), body=BODY)
    async with stalled_client(api_key) as (socket, waiting):
        names = [f"s{number}" for number in range(SUBSCRIPTIONS)]
        for name in names:
            await socket.send_frame(
                type="subscribe", collection="posts", subscription=name, since=cursor
            )
        await read_a_little(socket)
        assert_bounded(waiting)
        socket.reading.set()
        total = SUBSCRIPTIONS * DOCUMENTS
        await socket.wait_until(lambda: len(socket.sent) >= total + len(names), 60)
        received = {name: [] for name in names}
        for event in socket.frames_of_type("event"):
            (name,) = event["subscriptions"]
            received[name].append(event["document"]["data"]["title"])
        assert all(titles == [str(n) for n in range(DOCUMENTS)] for titles in received.values())


async def test_many_snapshots(api_key):
    await create_posts()
    async with stalled_client(api_key) as (socket, waiting):
        names = [f"s{number}" for number in range(SUBSCRIPTIONS)]
        for name in names:
            await socket.send_frame(
                type="subscribe", collection="posts", subscription=name, snapshot=True
            )
        await read_a_little(socket)
        assert_bounded(waiting)
        socket.reading.set()
        last = {}
        while len(last) < SUBSCRIPTIONS:
            await asyncio.sleep(0.1)
            frames = socket.frames_of_type("snapshot")
            last = {frame["subscription"] for frame in frames if not frame["more"]}
        assert_frames_are_small(socket)
        for name in names:
            pages = [frame["documents"] for frame in frames if frame["subscription"] == name]
            titles = [document["data"]["title"] for page in pages for document in page]
            assert titles == [str(n) for n in range(DOCUMENTS)]


async def test_events_during_snapshot_of_collection_without_log(api_key, settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": {"model": "app.Post", "durable": False}}}
    await create_posts()
    async with stalled_client(api_key) as (socket, waiting):
        await socket.send_frame(type="subscribe", collection="posts", snapshot=True)
        await asyncio.sleep(0.3)
        for number in range(300):
            await Post.objects.acreate(title=str(number), body=f"{number}" + BODY * 10)
            if waiting.connection.writer.closed:
                break
        assert 0 < number < 10
        assert_bounded(waiting)
        socket.reading.set()
        await socket.wait_until(lambda: socket.close_code is not None)
        assert socket.close_code == CloseCode.SLOW_CONSUMER


async def test_few_events_during_snapshot_without_log_follow_it(api_key, settings):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": {"model": "app.Post", "durable": False}}}
    await create_posts()
    async with stalled_client(api_key) as (socket, waiting):
        await socket.send_frame(type="subscribe", collection="posts", snapshot=True)
        await asyncio.sleep(0.3)
        for number in range(3):
            await Post.objects.acreate(title=f"new {number}", body=BODY * 10)
        await asyncio.sleep(0.1)
        assert waiting.highest > 600_000
        socket.reading.set()
        await socket.wait_until(lambda: len(socket.frames_of_type("event")) == 3)
        kinds = [frame["type"] for frame in socket.frames]
        assert kinds[-4:] == ["snapshot", "event", "event", "event"]
        await socket.wait_until(lambda: waiting.connection.writer.waiting_bytes == 0)


def keep(room, count, size):
    """Store broadcasts in the history of a room."""
    stream = RoomStream.objects.create(project="default", name=room, head=count)
    text = encode(Broadcast(room, "default", "x" * size, now(), epoch=stream.epoch)).decode()
    for start in range(1, count + 1, 100):
        RoomMessage.objects.bulk_create(
            RoomMessage(stream=stream, seq=seq, event=text.replace('"xx', f'"{seq:04}xx'))
            for seq in range(start, start + 100)
        )


async def test_history_of_room(api_key, settings):
    settings.COCOBASE_REALTIME = {"ROOMS": {"*": {"history": 1000}}}
    await sync_to_async(keep)("r", 1000, 64_000)
    async with stalled_client(api_key) as (socket, waiting):
        await socket.send_frame(type="join", room="r", history=1000)
        await asyncio.sleep(0.5)
        for number in range(5):
            await abroadcast("r", f"live {number}" + "y" * 10_000)
        await read_a_little(socket)
        assert_bounded(waiting)
        assert waiting.highest > 300_000
        socket.reading.set()
        await socket.wait_until(lambda: "live 4" in socket.sent[-1].get("text", ""))
        messages = [event["message"] for event in socket.frames_of_type("event")]
        numbers = [int(message[:4]) for message in messages[:-5]]
        assert numbers == list(range(1001 - len(numbers), 1001))
        assert 60 <= len(numbers) <= 66  # 4 MiB
        assert [message[:6] for message in messages[-5:]] == [f"live {n}" for n in range(5)]
        assert waiting.connection.writer.waiting_bytes == 0


async def test_resumed_history_that_is_deleted_meanwhile_ends_the_connection(api_key, settings):
    """The client was promised all of it; it comes back with its cursor."""
    settings.COCOBASE_REALTIME = {"ROOMS": {"*": {"history": 1000}}}
    await sync_to_async(keep)("r", 100, 20_000)
    stream = await RoomStream.objects.aget()
    start = history.cursor(("default", "r"), Position(stream.epoch, 0))
    async with stalled_client(api_key) as (socket, _):
        await socket.send_frame(type="join", room="r", since=start)
        await asyncio.sleep(0.3)
        await RoomMessage.objects.filter(seq__lte=90).adelete()
        socket.reading.set()
        await socket.wait_until(lambda: socket.close_code is not None)
        assert socket.frames_of_type("joined")[0]["resumed"] is True
        assert socket.close_code == CloseCode.POSITION_LOST
        numbers = [int(event["message"][:4]) for event in socket.frames_of_type("event")]
        assert numbers == list(range(1, len(numbers) + 1))


@pytest.mark.parametrize("character", ["x", "字", "😀"])
async def test_broadcasts(api_key, settings, character):
    settings.COCOBASE_REALTIME = {}
    async with open_socket(token=api_key) as socket:
        await socket.send_frame(type="join", room="r")
        await socket.wait_for_frame("joined")
        waiting = Waiting()
        socket.reading.clear()
        text, count = "é" + character * 30_000, 0
        while not waiting.connection.writer.closed:
            await abroadcast("r", text)
            await asyncio.sleep(0)
            count += 1
        assert 800_000 < count * len(text.encode()) < 1_300_000
        assert_bounded(waiting)
        socket.reading.set()
        await socket.wait_until(lambda: socket.close_code is not None)
        assert socket.close_code == CloseCode.SLOW_CONSUMER


@pytest.fixture
def crowded_room(settings):
    """A room of 1,200 members, each of which has the largest state."""
    settings.COCOBASE_REALTIME = {"PRESENCE": {"BACKEND": "memory"}}
    presence_base._backend.cache_clear()
    backend = get_backend()
    backend.renew_lease("elsewhere", 60)
    for number in range(1200):
        member = f"m{number:04}"
        state = {"status": "字" * 330}
        backend.enter(
            PresenceEntry(("default", "r"), member, "elsewhere", member, member, "r", state=state)
        )
    yield backend
    presence_base._backend.cache_clear()


async def test_members_of_room(api_key, crowded_room):
    async with stalled_client(api_key) as (socket, waiting):
        await socket.send_frame(type="join", room="r")
        await asyncio.sleep(0.5)
        assert_bounded(waiting)
        hub = Hub.current()
        (room,) = hub.rooms.rooms.values()
        # a member of the last page leaves, and one of the first page is changed
        left = crowded_room.leave(("default", "r"), "m1190")
        updated = crowded_room.set_state(("default", "r"), "m0001", {"status": "new"})
        hub.rooms.presence.announce([left, updated])
        socket.reading.set()
        await socket.wait_until(
            lambda: any(not frame["more"] for frame in socket.frames_of_type("members"))
        )
        assert_frames_are_small(socket)
        (joined,) = socket.frames_of_type("joined")
        assert joined["more"] is True
        members = {member["id"]: member for member in joined["members"]}
        for frame in socket.frames_of_type("members", "presence"):
            if frame["type"] == "members":
                members |= {member["id"]: member for member in frame["members"]}
            elif frame["event"] == "left":
                members.pop(frame["member"]["id"], None)
            else:
                members[frame["member"]["id"]] = frame["member"]
        assert members.keys() == room.members.keys()
        assert len(members) == 1200  # with this client
        assert members["m0001"]["state"] == {"status": "new"}
        assert len(json.dumps(members)) > MAX_FRAME_BYTES


async def test_small_room_has_all_members_in_one_frame(api_key):
    async with open_socket(token=api_key) as socket:
        await socket.send_frame(type="join", room="r")
        await socket.wait_for_frame("joined")
        assert "more" not in socket.frames_of_type("joined")[0]
        await socket.send_frame(type="ping")
        await socket.wait_for_frame("pong")
        assert not socket.frames_of_type("members")

"""Clients that resume from nearly the same position share the reads of the log."""

import asyncio
import random
import threading
from contextlib import AsyncExitStack

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from django_cocobase_realtime.delivery import replay, shared_replays
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.permissions import Permission
from django_cocobase_realtime.utils.fair_queue import WorkersOverloaded
from django_cocobase_realtime.wire.codes import CloseCode
from tests.app.models import Post
from tests.support.sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)
LIMITS = dict.fromkeys(
    ("connections_per_user", "connections_per_address", "unauthenticated_per_address"), 1000
)


class Reads:
    """The reads of the log for replays, shared or not, which wait while ``gate`` is cleared."""

    def __init__(self, monkeypatch):
        self.shared, self.single, self.errors = [], 0, []
        # number of shared reads that wait
        self.blocked = 1000
        self.gate = threading.Event()
        self.gate.set()
        read_changes, read_page = shared_replays._read_changes, replay._read_page

        def read(collection, after, until):
            self.shared.append((after.seq, until))
            changes = read_changes(collection, after, until)
            if len(self.shared) <= self.blocked:
                assert self.gate.wait(10)
            if self.errors:
                raise self.errors.pop()
            return changes

        def read_alone(*args):
            self.single += 1
            return read_page(*args)

        monkeypatch.setattr(shared_replays, "_read_changes", read)
        monkeypatch.setattr(replay, "_read_page", read_alone)


@pytest.fixture
def reads(monkeypatch):
    monkeypatch.setattr(shared_replays, "MAX_WAIT", 10)  # however slow the machine is
    reads = Reads(monkeypatch)
    yield reads
    reads.gate.set()


@pytest.fixture(autouse=True)
def configure(settings):
    def configure(**options):
        declared = {"model": "app.Post", "fields": ["title", "views"]} | options
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": declared}, "LIMITS": LIMITS}

    configure()
    return configure


async def connect(stack, token, count):
    return [await stack.enter_async_context(open_socket(token=token)) for _ in range(count)]


async def subscribe(*sockets, **options):
    """Subscribe, and return the members of the replies that are needed to resume."""
    for socket in sockets:
        await socket.send_frame(**{"type": "subscribe", "collection": "posts"} | options)
    for socket in sockets:
        await socket.wait_for_frame("subscribed")
    # until the changes are requested
    await asyncio.sleep(0.05)
    (reply, *_) = sockets[0].frames_of_type("subscribed")
    return {"since": reply["cursor"], "scope": reply["scope"]}


async def events(socket, count):
    await socket.wait_until(lambda: len(socket.frames_of_type("event")) >= count)
    return [
        (event["document"].get("data", {}).get("title"), event.get("replayed", False))
        for event in socket.frames_of_type("event")
    ]


async def make_posts(first, last):
    for number in range(first, last + 1):
        await Post.objects.acreate(title=str(number), views=number % 2)


def replayed(first, last):
    return [(str(number), True) for number in range(first, last + 1)]


async def test_clients_that_resume_share_one_read_and_one_text(api_key, reads):
    async with AsyncExitStack() as stack:
        (staying, *sockets) = await connect(stack, api_key, 21)
        start = await subscribe(staying)
        await make_posts(1, 5)
        await events(staying, 5)
        reads.gate.clear()
        await subscribe(*sockets[:10], **start)
        # the log is being read
        await subscribe(*sockets[10:15], **start)
        reads.gate.set()
        for socket in sockets[:15]:
            assert await events(socket, 5) == replayed(1, 5)
        # it was read
        await subscribe(*sockets[15:], **start)
        for socket in sockets[15:]:
            assert await events(socket, 5) == replayed(1, 5)
        assert (len(reads.shared), reads.single) == (1, 0)
        texts = [
            message["text"]
            for socket in sockets
            for message in socket.sent
            if '"type":"event"' in message.get("text", "")
        ]
        assert (len(texts), len({id(text) for text in texts})) == (100, 5)
        await make_posts(6, 6)
        for socket in sockets:
            assert (await events(socket, 6))[5:] == [("6", False)]


async def test_positions_filters_fields_and_names_differ(api_key, reads, monkeypatch):
    monkeypatch.setattr(shared_replays, "MAX_FORMS", 2)
    async with AsyncExitStack() as stack:
        (staying, *sockets) = await connect(stack, api_key, 6)
        start = await subscribe(staying)
        await make_posts(1, 6)
        await events(staying, 6)
        cursors = [event["cursor"] for event in staying.frames_of_type("event")]
        await subscribe(sockets[0], **start)
        await subscribe(sockets[1], since=cursors[2], scope=start["scope"])
        await subscribe(sockets[2], subscription="other", **start)
        assert await events(sockets[0], 6) == replayed(1, 6)
        assert await events(sockets[1], 3) == replayed(4, 6)
        assert await events(sockets[2], 6) == replayed(1, 6)
        names = [e["subscriptions"] for e in sockets[2].frames_of_type("event")]
        assert names == [["other"]] * 6
        fresh = await connect(stack, api_key, 2)
        odd = await subscribe(fresh[0], filters={"views": 1})
        title = await subscribe(fresh[1], fields=["title"])
        await subscribe(sockets[3], filters={"views": 1}, since=start["since"], scope=odd["scope"])
        await subscribe(sockets[4], fields=["title"], since=start["since"], scope=title["scope"])
        assert [title for title, _ in await events(sockets[3], 3)] == ["1", "3", "5"]
        await events(sockets[4], 6)
        data = [e["document"]["data"] for e in sockets[4].frames_of_type("event")]
        assert data == [{"title": str(n)} for n in range(1, 7)]
        assert (len(reads.shared), reads.single) == (1, 0)
        (topic,) = Hub.current().topics.topics.values()
        assert all(kept._frames.forms <= 2 for kept in topic.shared_replays._kept.values())


async def test_changes_that_are_delivered_meanwhile_are_not_read(api_key, reads):
    async with AsyncExitStack() as stack:
        (staying, *sockets) = await connect(stack, api_key, 4)
        start = await subscribe(staying)
        await make_posts(1, 3)
        await events(staying, 3)
        await subscribe(sockets[0], **start)
        await make_posts(4, 6)
        await events(staying, 6)
        await subscribe(sockets[1], **start)
        assert await events(sockets[1], 6) == replayed(1, 6)
        assert reads.shared == [(0, 3)]


async def test_client_that_leaves_does_not_affect_the_others(api_key, reads):
    async with AsyncExitStack() as stack:
        (staying, *sockets) = await connect(stack, api_key, 3)
        start = await subscribe(staying)
        await make_posts(1, 3)
        await events(staying, 3)
        reads.gate.clear()
        async with open_socket(token=api_key) as leaving:
            await subscribe(leaving, **start)
            await subscribe(*sockets, **start)
        reads.gate.set()
        for socket in sockets:
            assert await events(socket, 3) == replayed(1, 3)
        assert (len(reads.shared), reads.single) == (1, 0)


async def test_failure_is_sent_to_each_and_not_kept(api_key, reads):
    async with AsyncExitStack() as stack:
        (staying, *sockets) = await connect(stack, api_key, 5)
        start = await subscribe(staying)
        await make_posts(1, 3)
        await events(staying, 3)
        reads.errors = [OperationalError("It does not answer.")]
        reads.gate.clear()
        await subscribe(*sockets[:3], **start)
        reads.gate.set()
        for socket in sockets[:3]:
            await socket.wait_until(lambda socket=socket: socket.close_code is not None)
            assert socket.close_code == CloseCode.UNAVAILABLE
        assert len(reads.shared) == 1
        await subscribe(sockets[3], **start)
        assert await events(sockets[3], 3) == replayed(1, 3)


async def test_client_reads_alone_if_the_read_fails_or_takes_too_long(api_key, reads, monkeypatch):
    async with AsyncExitStack() as stack:
        (staying, *sockets) = await connect(stack, api_key, 4)
        start = await subscribe(staying)
        await make_posts(1, 3)
        await events(staying, 3)
        # too many calls of the client that was the first wait
        reads.errors = [WorkersOverloaded("Too many calls wait.")]
        await subscribe(*sockets[:2], **start)
        monkeypatch.setattr(shared_replays, "MAX_WAIT", 0.2)
        reads.gate.clear()
        await subscribe(*sockets[2:], **start)
        for socket in sockets:
            assert await events(socket, 3) == replayed(1, 3)
        assert reads.single


async def test_slow_account_does_not_delay_the_others(api_key, reads, monkeypatch):
    """The others begin one further read together, instead of one each."""
    monkeypatch.setattr(shared_replays, "MAX_WAIT", 0.2)
    other = (await sync_to_async(ApiKey.objects.create_key)("other"))[1]
    async with AsyncExitStack() as stack:
        (staying, slow) = await connect(stack, api_key, 2)
        sockets = await connect(stack, other, 10)
        start = await subscribe(staying)
        scope = (await subscribe(*await connect(stack, other, 1)))["scope"]
        await make_posts(1, 3)
        await events(staying, 3)
        reads.gate.clear()
        reads.blocked = 1
        await subscribe(slow, **start)
        await subscribe(*sockets, since=start["since"], scope=scope)
        for socket in (slow, *sockets):
            assert await events(socket, 3) == replayed(1, 3)
        assert (len(reads.shared), reads.single) == (2, 0), reads.shared


async def test_pages_of_a_long_replay_are_shared(api_key, reads, monkeypatch):
    """Clients that wait for a page which ends before their position join the next one."""
    monkeypatch.setattr(shared_replays, "PAGE_BYTES", 3000)
    async with AsyncExitStack() as stack:
        (staying, *sockets) = await connect(stack, api_key, 11)
        start = await subscribe(staying)
        await make_posts(1, 30)
        await events(staying, 30)
        cursor = staying.frames_of_type("event")[19]["cursor"]
        reads.gate.clear()
        await subscribe(sockets[0], **start)
        await subscribe(*sockets[1:], since=cursor, scope=start["scope"])
        reads.gate.set()
        assert await events(sockets[0], 30) == replayed(1, 30)
        for socket in sockets[1:]:
            assert await events(socket, 10) == replayed(21, 30)
        assert reads.single == 0
        assert len(reads.shared) <= 8


class CheckedPosts(Permission):
    def has_object_permission(self, identity, post):
        return post.views == 1


async def test_rows_that_are_checked_one_by_one_are_not_shared(api_key, reads, configure):
    configure(permission=f"{__name__}.CheckedPosts")
    async with AsyncExitStack() as stack:
        (staying, *sockets) = await connect(stack, api_key, 3)
        start = await subscribe(staying)
        await make_posts(1, 4)
        await events(staying, 2)
        await subscribe(*sockets, **start)
        for socket in sockets:
            assert await events(socket, 2) == [("1", True), ("3", True)]
        assert (reads.shared, reads.single) == ([], 2)


async def test_kept_changes_are_bounded_and_forgotten(api_key, reads, monkeypatch):
    monkeypatch.setattr(shared_replays, "MAX_KEPT_BYTES", 2000)
    monkeypatch.setattr(shared_replays, "KEEP_SECONDS", 0.2)
    async with AsyncExitStack() as stack:
        (staying, *sockets) = await connect(stack, api_key, 4)
        start = await subscribe(staying)
        await make_posts(1, 30)
        await events(staying, 30)
        (topic,) = Hub.current().topics.topics.values()
        shared = topic.shared_replays
        await subscribe(sockets[0], **start)
        assert await events(sockets[0], 30) == replayed(1, 30)
        assert 0 < shared._kept_bytes <= 2000
        assert shared._kept_bytes == sum(kept.size for kept in shared._kept.values())
        for number, socket in enumerate(sockets[1:]):
            # a client cannot choose how many forms are kept
            await subscribe(socket, subscription=f"name {number}", **start)
            assert await events(socket, 30) == replayed(1, 30)
        await asyncio.sleep(2 * shared_replays.KEEP_SECONDS + 0.1)
        assert (shared._kept, shared._kept_bytes, shared._reads) == ({}, 0, [])
        await make_posts(31, 31)
        await events(staying, 31)
        assert shared._kept == {}


@pytest.mark.parametrize("seed", range(3))
async def test_each_client_is_sent_each_change_once(api_key, monkeypatch, seed):
    """Clients resume from random positions while rows change, and pages are small."""
    chance = random.Random(seed)
    for module in (shared_replays, replay):
        monkeypatch.setattr(module, "PAGE_BYTES", 2000)
    monkeypatch.setattr(shared_replays, "MAX_KEPT_BYTES", chance.choice([1, 3000, 10**6]))
    monkeypatch.setattr(shared_replays, "KEEP_SECONDS", 0.1)
    async with AsyncExitStack() as stack:
        (staying, *sockets) = await connect(stack, api_key, 31)
        start = await subscribe(staying)
        await make_posts(1, 40)
        await events(staying, 40)
        cursors = [start["since"], *(e["cursor"] for e in staying.frames_of_type("event"))]
        firsts = {}

        async def resume(socket):
            await asyncio.sleep(chance.random())
            after = firsts[socket] = chance.choice([0, 1, 2, 20, 38, 39, 40])
            await subscribe(socket, since=cursors[after], scope=start["scope"])

        resuming = asyncio.gather(*map(resume, sockets))
        last = 40
        while not resuming.done():
            last += 1
            await make_posts(last, last)
            await asyncio.sleep(0.02)
            if chance.random() < 0.1:
                (topic,) = Hub.current().topics.topics.values()
                topic.shared_replays._forget()
        for socket in sockets:
            await socket.wait_until(
                lambda socket=socket: (
                    socket.frames_of_type("event")
                    and socket.frames_of_type("event")[-1]["document"]["data"]["title"] == str(last)
                )
            )
            titles = [int(title) for title, _ in await events(socket, 1)]
            assert titles == list(range(firsts[socket] + 1, last + 1))

"""The shared reads of snapshots in a test, and clients that request snapshots."""

import asyncio
import threading

import pytest

from django_cocobase_realtime.delivery import shared_snapshots
from tests.support.sockets import open_socket

LIMITS = dict.fromkeys(
    ("connections_per_user", "connections_per_address", "unauthenticated_per_address"), 1000
)


class Reads:
    """The shared reads of a test, which wait while ``gate`` is cleared."""

    def __init__(self, monkeypatch):
        self.count, self.errors = 0, []
        # number of reads that wait
        self.blocked = 1000
        self.gate = threading.Event()
        self.gate.set()
        self._read_pages = shared_snapshots.read_pages
        monkeypatch.setattr(shared_snapshots, "read_pages", self.read_pages)

    def read_pages(self, *args):
        self.count += 1
        waits = self.count <= self.blocked
        result = None if self.errors else self._read_pages(*args)
        if waits:
            assert self.gate.wait(10)
        if self.errors:
            raise self.errors.pop()
        return result


@pytest.fixture(name="reads")
def reads_fixture(monkeypatch):
    # however slow the machine is
    for name in ("JOIN_SECONDS", "MAX_TURN", "MAX_WAIT"):
        monkeypatch.setattr(shared_snapshots, name, 10)
    reads = Reads(monkeypatch)
    yield reads
    reads.gate.set()


@pytest.fixture(name="configure", autouse=True)
def configure_fixture(settings):
    def configure(limits=None, **options):
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": {
                "posts": {"model": "app.Post", "fields": ["title", "views"], **options}
            },
            "LIMITS": LIMITS | (limits or {}),
        }

    configure()
    return configure


async def connect(stack, token, count):
    return [await stack.enter_async_context(open_socket(token=token)) for _ in range(count)]


async def request(*sockets, **options):
    for socket in sockets:
        await socket.send_frame(
            **{"type": "subscribe", "collection": "posts", "snapshot": True} | options
        )
    for socket in sockets:
        await socket.wait_for_frame("subscribed")
    # until the snapshot is requested
    await asyncio.sleep(0.05)


def request_with(socket, options):
    return request(socket, **options)


async def snapshots(*sockets):
    for socket in sockets:
        await socket.wait_for_frame("snapshot")
    return [socket.frames_of_type("snapshot") for socket in sockets]


def assert_same_text(sockets):
    """Check that the snapshots of several clients are one text in memory."""
    texts = [
        message["text"]
        for socket in sockets
        for message in socket.sent
        if '"type":"snapshot"' in message.get("text", "")
    ]
    assert len(texts) == len(sockets)
    assert len({id(text) for text in texts}) == 1


def titles(frames):
    return [document["data"]["title"] for frame in frames for document in frame["documents"]]

"""No process delivers an event before a change of related tables that was committed before it.

Two processes share one database. Half of what one announces to the other is lost, and half of the
announcements of the writers. A membership is removed and committed, and then a ticket is saved.
"""

import asyncio
import random
import threading
import time
from contextlib import suppress

import pytest
from django.db import connections

from django_cocobase_realtime.declarations.dependency_table import hidden_stream
from django_cocobase_realtime.delivery.rights import SubscriptionRights
from django_cocobase_realtime.delivery.topic import CollectionTopic
from django_cocobase_realtime.delivery.topics import TopicManager
from django_cocobase_realtime.events import Change, LogAppended, decode, encode
from django_cocobase_realtime.models import LogEvent, Stream

pytestmark = pytest.mark.django_db(transaction=True)
HIDDEN = hidden_stream("default")
POLL = 0.1
WRITERS, PAIRS = 4, 130


@pytest.fixture(autouse=True)
def _collections(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "depends_on": ["app.Author"]}}
    }


class Groups:
    """Groups of a channel layer that needs no time."""

    async def acquire(self, group, timeout):
        pass

    def release(self, group):
        pass


class Process:
    """One process, and the pairs of a stream and a document id that it has delivered."""

    def __init__(self, choose):
        self.delivered = []
        self.others = []
        self._choose = choose

    async def _poll(self):
        while True:
            await asyncio.sleep(POLL)
            for using, positions in self.topics.positions().items():
                await self.topics.find_new(using, positions)

    def _announce(self, event):
        for other in self.others:
            if self._choose.random() < 0.5:
                asyncio.get_running_loop().call_soon(other.receive, encode(event))

    async def open(self, monkeypatch):
        """Follow the streams. The parts that are created now keep these methods."""

        async def handle(rights, using, changes):
            await asyncio.sleep(self._choose.random() * 0.003)
            self.delivered.extend(map(key_of, changes))

        monkeypatch.setattr(SubscriptionRights, "handle_changes", handle)
        monkeypatch.setattr(
            CollectionTopic, "dispatch", lambda topic, change: self.delivered.append(key_of(change))
        )
        self.topics = TopicManager(Groups(), self._announce)
        await self.topics.open("posts")
        self._task = asyncio.create_task(self._poll())

    def receive(self, payload):
        event = decode(payload)
        if isinstance(event, Change):
            self.topics.receive(event)
        else:
            self.topics.receive_announcement(event)

    async def stop(self):
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        self.topics.release("posts")
        self.topics.close()
        await self.topics.wait_closed()
        await asyncio.sleep(0.05)


def key_of(change):
    return change.collection, change.document_id


def write(loop, processes, writer, seed):
    """Commit pairs; announce each commit to one of the processes, or to none."""
    choose = random.Random(f"{seed} {writer}")
    try:
        for number in range(PAIRS):
            for stream in (HIDDEN, "posts"):
                LogEvent.objects.create(
                    collection=stream,
                    transaction_id=f"{writer}:{number} {stream}",
                    op="updated",
                    document_id=f"{writer}:{number}",
                    before="{}",
                    after="{}",
                )
                if choose.random() < 0.5:
                    receive = choose.choice(processes).receive
                    loop.call_soon_threadsafe(receive, encode(LogAppended(stream)))
            time.sleep(choose.random() * 0.015)
    finally:
        connections.close_all()


async def test_removal_is_known_before_the_event_of_a_later_commit(monkeypatch):
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    choose = random.Random(f"{seed} layer")
    for name in ("posts", HIDDEN):
        await Stream.objects.acreate(collection=name)
    processes = [Process(choose) for _ in range(2)]
    for process in processes:
        process.others = [other for other in processes if other is not process]
        await process.open(monkeypatch)
    loop = asyncio.get_running_loop()
    writers = [
        threading.Thread(target=write, args=(loop, processes, writer, seed))
        for writer in range(WRITERS)
    ]
    for writer in writers:
        writer.start()
    expected = 2 * WRITERS * PAIRS
    async with asyncio.timeout(60):
        while any(len(process.delivered) < expected for process in processes):
            await asyncio.sleep(0.02)
    for process in processes:
        await process.stop()
    for process in processes:
        check_order(process.delivered)


def check_order(delivered):
    """Assert that everything was delivered once, and a membership before its ticket."""
    places = {key: place for place, key in enumerate(delivered)}
    assert len(places) == len(delivered) == 2 * WRITERS * PAIRS
    late = [
        document
        for stream, document in places
        if stream == "posts" and places[HIDDEN, document] > places["posts", document]
    ]
    assert late == []

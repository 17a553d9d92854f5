"""A snapshot has the documents as of its cursor, whatever is written while it is read and sent."""

import asyncio
import random
import time
from contextlib import AsyncExitStack

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from django_cocobase_realtime.delivery import checked_rows, shared_snapshots, snapshot
from django_cocobase_realtime.log import touched
from django_cocobase_realtime.log.cursor import decode
from django_cocobase_realtime.permissions import Permission
from tests.app.models import Author, Post
from tests.support.log import read_all
from tests.support.sockets import open_socket
from tests.support.triggers import installed_triggers

pytestmark = pytest.mark.django_db(transaction=True)
HERE = __name__
CLIENTS, SECONDS = 8, 0.8
LIMITS = {"connections_per_user": 1000, "unauthenticated_per_address": 1000}


class NotThree(Permission):
    def has_object_permission(self, identity, post):
        return post.views != 3


def serialize(post):
    return {"views": post.views, "title": post.title, "author": post.author and post.author.name}


def with_author(posts):
    return posts.select_related("author")


KINDS = {
    "shared": {},
    "alone": {},
    "triggers": {"capture": "triggers"},
    "checked": {"permission": f"{HERE}.NotThree"},
    "serialized": {"fields": None, "serializer": f"{HERE}.serialize"},
    "joined": {
        "fields": None,
        "serializer": f"{HERE}.serialize",
        "queryset": f"{HERE}.with_author",
    },
}
REQUESTS = [{}, {"filters": {"views_gte": 2}}, {"snapshot": {"order": "-views", "limit": 7}}]


def values(chance):
    author = chance.choice([None, *Author.objects.all()])
    return {"views": chance.randrange(5), "title": chance.choice("abc"), "author": author}


def write(chance):
    """Make one random transaction."""
    with transaction.atomic():
        # SQLite refuses a transaction that reads first, and writes after others have written
        Post.objects.filter(pk=0).update(views=0)
        rows = list(Post.objects.order_by("?")[:4])
        for row in rows[: chance.choice([1, 1, 2, 4])]:
            match chance.randrange(6):
                case 0:
                    row.delete()
                case 1:
                    fresh = Post.objects.create(**values(chance))
                    if chance.random() < 0.5:
                        fresh.delete()
                case _:
                    Post.objects.filter(pk=row.pk).update(**values(chance))


def slow(function, chance):
    def call(*args, **options):
        time.sleep(chance.random() * 0.01)
        return function(*args, **options)

    return call


class Replica:
    """The views of the documents that a client has; strict about the events that it may get."""

    def __init__(self, socket, request, matches):
        self.socket, self.request, self._matches = socket, request, matches
        self.is_limited = "snapshot" in request

    def matches(self, views):
        return self._matches(views) and ("filters" not in self.request or views >= 2)

    async def subscribe(self, chance):
        await asyncio.sleep(chance.random() * SECONDS / 2)
        if chance.random() < 0.5:
            self.socket.stops_reading_at = lambda frame: frame["type"] == "snapshot"
        request = {"type": "subscribe", "collection": "posts", "snapshot": True} | self.request
        await self.socket.send_frame(**request, transitions=True)
        await self.socket.wait_for_frame("snapshot")
        await asyncio.sleep(SECONDS / 4)
        self.socket.reading.set()
        await self.socket.wait_until(
            lambda: not self.socket.frames_of_type("snapshot")[-1]["more"], 20
        )

    @property
    def snapshot(self):
        """The views of the documents in the snapshot, and its cursor."""
        pages = self.socket.frames_of_type("snapshot")
        (cursor,) = {page["cursor"] for page in pages}
        documents = [document for page in pages for document in page["documents"]]
        rows = {document["id"]: document["data"]["views"] for document in documents}
        assert len(rows) == len(documents)
        return rows, decode("posts", cursor).seq

    def rows(self):
        """Return the documents after all events."""
        rows, _ = self.snapshot
        for frame in self.socket.frames_of_type("event"):
            id, event = frame["document"]["id"], frame["event"]
            if not self.is_limited:
                assert (id in rows) is (event in ("updated", "left", "deleted")), frame
            if event in ("left", "deleted"):
                rows.pop(id, None)
            else:
                rows[id] = frame["document"]["data"]["views"]
        return rows


def states(changes):
    """Return the views of all rows after each event, by the event's number."""
    rows, result = {}, {0: {}}
    for change in changes:
        if change.op == "deleted":
            del rows[change.document_id]
        else:
            rows[change.document_id] = change.after["views"]
        result[change.seq] = dict(rows)
    return result


def assert_exact(replica, rows):
    """Compare a snapshot with all rows as of its cursor."""
    shown, _ = replica.snapshot
    matching = {id: views for id, views in rows.items() if replica.matches(views)}
    if replica.is_limited:
        ids = sorted(matching, key=lambda key: (-matching[key], int(key)))
        assert list(shown) == ids[: replica.request["snapshot"]["limit"]]
        matching = {id: matching[id] for id in shown}
    assert shown == matching


@pytest.fixture(params=KINDS)
def kind(request, settings, monkeypatch):
    options = {"model": "app.Post", "fields": ["views"], "filters": ["views"]}
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": options | KINDS[request.param]},
        "LIMITS": LIMITS,
    }
    if request.param == "alone":
        monkeypatch.setattr(shared_snapshots.SharedSnapshots, "read", read_nothing)
    with installed_triggers():
        yield request.param


async def read_nothing(*args):
    """Have each client read alone."""


async def test_snapshot_is_the_state_at_its_cursor(api_key, monkeypatch, kind):
    seed = random.randrange(10**6)
    print("seed", seed)
    chance = random.Random(seed)
    # so that others commit after the position is taken, and between the keys and each page
    for name in ("select_keys", "read_documents"):
        monkeypatch.setattr(snapshot, name, slow(getattr(snapshot, name), chance))
    for name in ("keys_as_of", "images_as_of"):
        monkeypatch.setattr(checked_rows, name, slow(getattr(checked_rows, name), chance))
    monkeypatch.setattr(snapshot, "PAGE_SIZE", 10)
    monkeypatch.setattr(shared_snapshots, "JOIN_SECONDS", 10)
    authors = [await Author.objects.acreate(name=name) for name in "xy"]
    await Post.objects.abulk_create(
        Post(views=n % 5, author=authors[n % 2], title="old") for n in range(45)
    )
    async with AsyncExitStack() as stack:
        replicas = []
        for number in range(CLIENTS):
            socket = await stack.enter_async_context(open_socket(token=api_key))
            request = REQUESTS[number % len(REQUESTS)]
            shown = (lambda views: views != 3) if kind == "checked" else (lambda views: True)
            replicas.append(Replica(socket, request, shown))
        subscribing = asyncio.gather(*(replica.subscribe(chance) for replica in replicas))
        while not subscribing.done():
            await sync_to_async(write)(chance)
            await asyncio.sleep(chance.choice([0, 0, 0.005]))
        await subscribing
        views = {str(pk): n async for pk, n in Post.objects.values_list("pk", "views")}
        for replica in replicas:
            expected = {id: n for id, n in views.items() if replica.matches(n)}
            if not replica.is_limited:
                await replica.socket.wait_until(
                    lambda replica=replica, expected=expected: replica.rows() == expected, 10
                )
        history = states(await sync_to_async(read_all)())
        for replica in replicas:
            assert_exact(replica, history[replica.snapshot[1]])


@pytest.mark.parametrize("write", ["keys", "rows"])
async def test_each_kind_of_write_while_a_snapshot_is_read(api_key, monkeypatch, kind, write):
    """They happen after the position is taken, or after the keys are selected."""
    pending = [True]

    def write_first(function):
        def call(*args, **options):
            if pending:
                pending.clear()
                Post.objects.filter(title="enters").update(views=4)
                Post.objects.filter(title="leaves").update(views=0)
                Post.objects.filter(title="changes").update(views=4)
                Post.objects.filter(title="goes").delete()
                Post.objects.create(title="comes", views=2)
                Post.objects.create(title="comes and goes", views=2).delete()
            return function(*args, **options)

        return call

    name = "select_keys" if write == "keys" else "read_documents"
    monkeypatch.setattr(snapshot, name, write_first(getattr(snapshot, name)))
    name = "keys_as_of" if write == "keys" else "images_as_of"
    monkeypatch.setattr(checked_rows, name, write_first(getattr(checked_rows, name)))
    rows = {"stays": 2, "enters": 0, "leaves": 2, "changes": 2, "goes": 2}
    ids = {
        title: str((await Post.objects.acreate(title=title, views=views)).pk)
        for title, views in rows.items()
    }
    async with open_socket(token=api_key) as socket:
        replica = Replica(socket, {"filters": {"views_gte": 2}}, lambda views: True)
        await socket.send_frame(
            type="subscribe", collection="posts", snapshot=True, transitions=True, **replica.request
        )
        await socket.wait_until(lambda: len(socket.frames_of_type("event")) == 7)
        shown, _ = replica.snapshot
        assert shown == {ids[title]: views for title, views in rows.items() if views}
        expected = {str(pk): n async for pk, n in Post.objects.values_list("pk", "views") if n}
        assert replica.rows() == expected


async def test_snapshot_after_which_too_much_has_changed_has_a_later_cursor(
    api_key, settings, monkeypatch
):
    """The events that were too many to be undone are delivered, and the rows read again."""
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": {"model": "app.Post"}}}
    monkeypatch.setattr(touched, "TOUCHED_LIMIT", 3)
    await Post.objects.abulk_create(Post(title=str(n)) for n in range(10))
    read_documents, pending = snapshot.read_documents, [True]

    def read_and_write(*args):
        if pending:
            pending.clear()
            Post.objects.update(title="new")
        return read_documents(*args)

    monkeypatch.setattr(snapshot, "read_documents", read_and_write)
    async with open_socket(token=api_key) as socket:
        await socket.send_frame(type="subscribe", collection="posts", snapshot=True)
        await socket.wait_for_frame("snapshot")
        await asyncio.sleep(0.1)
        (frame,) = socket.frames_of_type("snapshot")
        assert {document["data"]["title"] for document in frame["documents"]} == {"new"}
        assert decode("posts", frame["cursor"]).seq == 20
        assert not socket.frames_of_type("event")


async def test_pages_for_which_too_much_has_changed_are_read_as_they_are_now(
    api_key, settings, monkeypatch
):
    """Their cursor was sent already. The events that follow repair what the client has."""
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": {"model": "app.Post"}}}
    monkeypatch.setattr(touched, "TOUCHED_LIMIT", 3)
    for name in ("PAGE_SIZE", "MAX_ROWS"):
        monkeypatch.setattr(snapshot, name, 10)
    monkeypatch.setattr(shared_snapshots.SharedSnapshots, "read", read_nothing)
    await Post.objects.abulk_create(Post(title="old") for n in range(25))
    async with open_socket(token=api_key) as socket:
        socket.stops_reading_at = lambda frame: frame["type"] == "snapshot"
        await socket.send_frame(type="subscribe", collection="posts", snapshot=True)
        await socket.wait_for_frame("snapshot")
        await sync_to_async(Post.objects.update)(title="new")
        socket.reading.set()
        await socket.wait_until(lambda: len(socket.frames_of_type("event")) == 25)
        pages = socket.frames_of_type("snapshot")
        assert [len(page["documents"]) for page in pages] == [10, 10, 5]
        assert pages[0]["documents"][0]["data"]["title"] == "old"
        assert pages[-1]["documents"][-1]["data"]["title"] == "new"
        assert len({page["cursor"] for page in pages}) == 1

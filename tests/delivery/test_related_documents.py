"""Documents that show related rows: their clients are sent what changes there."""

import asyncio
import contextlib
import os
import random

import pytest

from django_cocobase_realtime.log.retention import trim
from django_cocobase_realtime.models import Stream
from tests.app.models import Author, Post, Tag
from tests.support import related_history
from tests.support.related_history import Client, History, wait_for_same, write_all
from tests.support.threads import call
from tests.support.triggers import installed_triggers

pytestmark = pytest.mark.django_db(transaction=True)

HISTORIES = int(os.environ.get("RELATED_HISTORIES", "2"))
WRITES = 12


@pytest.fixture(params=["signals", "triggers"])
def capture(request):
    return request.param


@pytest.fixture
def declare(settings, capture):
    """Declare collections, whose writes are captured in one of the ways."""
    stack = contextlib.ExitStack()

    def declare(collections, **options):
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": collections,
            "CAPTURE": capture,
            "LOG": {"POLL": 20},  # nothing may depend on it
            **options,
        }
        if capture == "triggers":
            stack.enter_context(installed_triggers())

    with stack:
        yield declare


@pytest.fixture
def posts(declare):
    declare({"posts": {"model": "app.Post", "fields": ["title", "author.name", "tags.name"]}})


async def test_renamed_row(realtime, posts, user):
    author = await Author.objects.acreate(name="a")
    post = await Post.objects.acreate(title="t", author=author)
    async with realtime(user=user) as ada:
        await ada.subscribe("posts", snapshot=True)
        (document,) = (await ada.receive("snapshot"))["documents"]
        assert document["data"] == {"title": "t", "author.name": "a", "tags.name": []}
        await Author.objects.filter(pk=author.pk).aupdate(name="b")
        event = await ada.receive("event")
        assert event["event"] == "updated"
        assert event["changed"] == ["author.name"]
        assert event["document"]["id"] == str(post.pk)
        assert event["document"]["data"] == {"title": "t", "author.name": "b", "tags.name": []}
        await Author.objects.filter(pk=author.pk).aupdate(password="x")
        assert await ada.receive_nothing()
        await call(author.delete)
        event = await ada.receive("event")
        assert event["document"]["data"]["author.name"] is None
        assert await ada.receive_nothing()


async def test_filter_of_the_client(realtime, posts, user):
    author = await Author.objects.acreate(name="a")
    for status in ("draft", "published"):
        await Post.objects.acreate(title=status, status=status, author=author)
    async with realtime(user=user) as ada:
        await ada.subscribe("posts", filters={"title": "draft"}, transitions=True)
        await Author.objects.aupdate(name="b")
        assert (await ada.receive("event"))["document"]["data"]["title"] == "draft"
        assert await ada.receive_nothing()


async def test_client_that_was_away(realtime, posts, user):
    """It is sent what was derived from changes while no process has followed the log."""
    author = await Author.objects.acreate(name="a")
    await Post.objects.acreate(title="t", author=author)
    client = Client("posts")
    async with realtime(user=user) as ada:
        await client.start(ada)
        await wait_for(lambda: client.documents)
        await client.stop()
    await Author.objects.aupdate(name="b")
    async with realtime(user=user) as ada:
        await client.start(ada)
        assert client.frames[-1]["resumed"] is True
        await wait_for(lambda: client.frames[-1]["type"] == "event")
        (data,) = client.documents.values()
        assert data["author.name"] == "b"
        await client.stop()


async def wait_for(condition, seconds=5):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def test_more_documents_than_the_limit(realtime, declare, user):
    """Clients load again, whether they are connected or away."""
    posts = {"model": "app.Post", "fields": ["title", "author.name"]}
    await call(lambda: declare({"posts": posts}, LIMITS={"derived_events": 2}))
    author = await Author.objects.acreate(name="a")
    await Post.objects.abulk_create([Post(title="t", author=author) for _ in range(3)])
    async with realtime(user=user) as ada:
        first = await ada.subscribe("posts")
        await Author.objects.aupdate(name="b")
        assert await ada.closed() == 4121
    async with realtime(user=user) as ada:
        since = {"since": first["cursor"], "scope": first["scope"]}
        again = await ada.subscribe("posts", snapshot=True, **since)
        assert again["resumed"] is False
        documents = (await ada.receive("snapshot"))["documents"]
        assert {document["data"]["author.name"] for document in documents} == {"b"}
    await Author.objects.aupdate(name="c")
    async with realtime(user=user) as ada:
        since = {"since": again["cursor"], "scope": again["scope"]}
        assert (await ada.subscribe("posts", **since))["resumed"] is False


async def test_hidden_stream_that_was_trimmed(realtime, posts, user):
    author = await Author.objects.acreate(name="a")
    await Post.objects.acreate(title="t", author=author)
    async with realtime(user=user) as ada:
        first = await ada.subscribe("posts")
    await Author.objects.aupdate(name="b")
    await call(lambda: trim("default", max_age=None, max_events=0))
    async with realtime(user=user) as ada:
        since = {"since": first["cursor"], "scope": first["scope"]}
        assert (await ada.subscribe("posts", **since))["resumed"] is False


async def test_nothing_is_derived_from_derived_events(realtime, declare, user):
    collections = {
        "posts": {"model": "app.Post", "fields": ["title", "author.name"]},
        "authors": {"model": "app.Author", "fields": ["name", "post.title"]},
    }
    await call(declare, collections)
    author = await Author.objects.acreate(name="a")
    await Post.objects.acreate(title="t", author=author)
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        await ada.subscribe("authors")
        await Author.objects.aupdate(name="b")
        frames = [await ada.receive("event"), await ada.receive("event")]
        assert {frame["subscriptions"][0]: frame["changed"] for frame in frames} == {
            "posts": ["author.name"],
            "authors": ["name"],
        }
        assert await ada.receive_nothing()
    heads = {s.collection: s.head async for s in Stream.objects.all()}
    assert (heads["posts"], heads["authors"]) == (2, 2)


async def test_own_many_to_many_field(realtime, posts, user):
    post = await Post.objects.acreate(title="t")
    tags = [await Tag.objects.acreate(name=name) for name in "ab"]
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        await post.tags.aset(tags)
        event = await ada.receive("event")
        assert event["document"]["data"]["tags.name"] == ["a", "b"]
        await Tag.objects.filter(name="a").aupdate(name="c")
        while event["document"]["data"]["tags.name"] != ["c", "b"]:
            event = await ada.receive("event")
        assert await ada.receive_nothing()


async def test_clients_have_what_a_snapshot_shows(realtime, declare, capture, user):
    """After any sequence of writes, with connections that are cut and resumed."""
    await call(declare, related_history.COLLECTIONS)
    for seed in range(HISTORIES):
        print(f"seed {seed}")
        choose = random.Random(f"clients {seed}")
        history = await call(lambda: History(seed, with_sql=capture == "triggers"))  # noqa: B023
        log = []
        clients = [Client(name) for name in related_history.COLLECTIONS]
        async with contextlib.AsyncExitStack() as stack:
            fresh = await stack.enter_async_context(realtime(user=user))
            open_clients = {}
            for client in clients:
                cut = await stack.enter_async_context(contextlib.AsyncExitStack())
                await client.start(await cut.enter_async_context(realtime(user=user)))
                open_clients[client] = cut
            for _ in range(WRITES):
                away = [client for client in clients if choose.random() < 0.2]
                for client in away:
                    await client.stop()
                    await open_clients[client].aclose()
                log += await write_all(history, choose.choice([1, 2, 4]))
                for client in away:
                    await client.start(
                        await open_clients[client].enter_async_context(realtime(user=user))
                    )
                if choose.random() < 0.4:
                    for client in clients:
                        await wait_for_same(client, fresh)
            for client in clients:
                await wait_for_same(client, fresh)
                await client.stop()
        assert len(log) >= WRITES


async def test_every_process_sends_the_same(realtime, posts, user):
    author = await Author.objects.acreate(name="a")
    await Post.objects.acreate(title="t", author=author)
    async with realtime(user=user) as ada, realtime(user=user) as ben:
        for client in (ada, ben):
            await client.subscribe("posts")
        await Author.objects.aupdate(name="b")
        assert await ada.receive("event") == await ben.receive("event")

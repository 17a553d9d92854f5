"""Values that no UTF-8 text can contain: no row stops its collection, and saving it works."""

import json
import logging
from types import SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction

from django_cocobase_realtime import broadcast, send_to_user
from django_cocobase_realtime.declarations import row_documents
from django_cocobase_realtime.delivery.tailer import LogTailer
from django_cocobase_realtime.events import Change
from django_cocobase_realtime.log import decoding
from django_cocobase_realtime.log.append import append
from django_cocobase_realtime.models import LogEvent
from tests.app.models import Post
from tests.support.triggers import installed_triggers, is_postgres

pytestmark = pytest.mark.django_db(transaction=True)
BAD = {"a": "x\ud800", "\udfff": [10**40, "\0"]}
SENT = {"a": "x\ufffd", "\ufffd": [10**40, "\0"]}
# PostgreSQL refuses such JSON in a column, so there only a serializer can return it
in_a_row = pytest.mark.skipif(is_postgres(), reason="PostgreSQL refuses lone surrogates")


def serialize(post):
    return {"title": post.title, "meta": BAD if post.title == "bad" else post.meta}


def serialize_deeply(post):
    value = []
    for _ in range(5000 if post.title == "bad" else 1):
        value = [value]
    return {"title": post.title, "deep": value}


@pytest.fixture(params=["signals", "triggers"])
def capture(request):
    return request.param


@pytest.fixture
def watch(settings, capture):
    """A function that watches posts with these options."""
    contexts = []

    def declare(**options):
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": {"posts": {"model": "app.Post", "capture": capture, **options}}
        }
        if capture == "triggers":
            context = installed_triggers()
            context.__enter__()
            contexts.append(context)

    yield declare
    for context in contexts:
        context.__exit__(None, None, None)


@sync_to_async
def create(title, **values):
    return Post.objects.create(title=title, **values)


def documents_of(frame):
    return {d["data"]["title"]: d["data"].get("meta") for d in frame["documents"]}


async def read_everywhere(realtime, api_key, bad_meta):
    """Read a bad row and its changes live, in a snapshot, and again from the log."""
    async with realtime(token=api_key) as app:
        cursor = (await app.subscribe("posts"))["cursor"]
        post = await create("bad", meta=bad_meta)
        await create("good", meta={"b": 1})
        first, second = await app.receive("event"), await app.receive("event")
        assert first["document"]["data"]["meta"] == SENT
        assert second["document"]["data"]["meta"] == {"b": 1}
        # of a column that has nothing to do with it
        await Post.objects.filter(pk=post.pk).aupdate(views=5)
        assert (await app.receive("event"))["document"]["data"]["meta"] == SENT
        await app.send({"type": "subscribe", "collection": "posts", "snapshot": True})
        await app.receive("subscribed")
        page = await app.receive("snapshot")
        assert documents_of(page) == {"bad": SENT, "good": {"b": 1}}
        await Post.objects.filter(pk=post.pk).adelete()
        assert (await app.receive("event"))["event"] == "deleted"
    async with realtime(token=api_key) as app:
        await app.subscribe("posts", since=cursor)
        events = [await app.receive("event") for _ in range(4)]
        assert [e["event"] for e in events] == ["created", "created", "updated", "deleted"]
        assert events[0]["document"]["data"]["meta"] == SENT
        assert events[2]["document"]["data"]["meta"] == SENT


@in_a_row
async def test_row_with_lone_surrogates(realtime, api_key, watch):
    await sync_to_async(watch)(fields=["title", "meta", "views"])
    await read_everywhere(realtime, api_key, BAD)


async def test_serializer_with_lone_surrogates(realtime, api_key, watch):
    await sync_to_async(watch)(serializer=f"{__name__}.serialize")
    await read_everywhere(realtime, api_key, {})


@in_a_row
async def test_row_with_lone_surrogates_that_is_not_durable(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "fields": ["meta"], "durable": False}}
    }
    async with realtime(token=api_key) as app:
        await app.subscribe("posts")
        await create("bad", meta=BAD)
        assert (await app.receive("event"))["document"]["data"]["meta"] == SENT


async def test_document_that_is_nested_too_deeply_says_so(realtime, api_key, watch):
    await sync_to_async(watch)(serializer=f"{__name__}.serialize_deeply")
    async with realtime(token=api_key) as app:
        await app.subscribe("posts")
        post = await create("bad")
        await create("good")
        assert (await app.receive("event"))["document"] == {"id": str(post.pk), "error": True}
        assert (await app.receive("event"))["document"]["data"]["title"] == "good"


@in_a_row
def test_bulk_insert_of_lone_surrogates(watch):
    watch(fields=["meta"])
    Post.objects.bulk_create([Post(title=f"{n}", meta=BAD) for n in range(3)])
    Post.objects.update(meta={"\udc00": 1})
    Post.objects.all().delete()
    assert LogEvent.objects.count() == 9


def test_events_with_nul_are_logged():
    """PostgreSQL's functions for JSON refuse NUL, which the log's text columns accept escaped."""
    image = {"text": "a\0b", "bad": "\ud800"}
    with transaction.atomic():
        append(
            connection,
            [Change(str(n), "posts", "created", "1", "t", "", after=image) for n in range(3)],
        )
    images = [json.loads(text) for text in LogEvent.objects.values_list("after", flat=True)]
    assert images == [{"text": "a\0b", "bad": "\ufffd"}] * 3


async def test_messages_with_lone_surrogates(realtime, api_key, user):
    async with realtime(token=api_key) as app, realtime(user=user) as person:
        await app.join("news")
        await sync_to_async(broadcast)("news", BAD)
        assert (await app.receive("event"))["message"] == SENT
        await sync_to_async(broadcast)("news", "good")
        assert (await app.receive("event"))["message"] == "good"
        await sync_to_async(send_to_user)(user, BAD)
        assert (await person.receive("event"))["message"] == SENT


def test_message_that_is_nested_too_deeply_is_rejected():
    message = []
    message.append(message)
    with pytest.raises(ValueError, match="nested too deeply"):
        broadcast("news", message)


# events that cannot be handled


async def test_event_that_cannot_be_read_does_not_stop_the_others(
    realtime, api_key, settings, monkeypatch, caplog
):
    """An error in a part that should not fail, such as a field of the project."""
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "fields": ["title"], "filters": ["title"]}}
    }
    decode = decoding._decode

    def fail(text, id):
        if "unreadable" in text:
            raise RuntimeError("It cannot be read.")
        return decode(text, id)

    monkeypatch.setattr(decoding, "_decode", fail)
    async with realtime(token=api_key) as app:
        cursor = (await app.subscribe("posts"))["cursor"]
        await create("unreadable")
        await create("good")
        # it is judged by the row as it is now
        assert (await app.receive("event"))["document"]["data"] == {"title": "unreadable"}
        assert (await app.receive("event"))["document"]["data"] == {"title": "good"}
    async with realtime(token=api_key) as app:
        await app.subscribe("posts", since=cursor)
        assert (await app.receive("event"))["document"]["data"] == {"title": "unreadable"}
        assert (await app.receive("event"))["document"]["data"] == {"title": "good"}
    assert "cannot be read" in caplog.text


async def test_document_that_cannot_be_made_does_not_stop_the_others(
    realtime, api_key, settings, monkeypatch
):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "serializer": f"{__name__}.serialize"}}
    }
    make_instance = row_documents.make_instance

    def fail(collection, change, using):
        if change.after["title"] == "unreadable":
            raise RuntimeError("It cannot be made.")
        return make_instance(collection, change, using)

    monkeypatch.setattr(row_documents, "make_instance", fail)
    async with realtime(token=api_key) as app:
        await app.subscribe("posts")
        post = await create("unreadable")
        await create("good")
        assert (await app.receive("event"))["document"] == {"id": str(post.pk), "error": True}
        assert (await app.receive("event"))["document"]["data"]["title"] == "good"


async def test_event_that_cannot_be_delivered_is_skipped(caplog):
    """The tailer alone: what it delivers to raises for one event."""
    delivered = []

    def deliver(change):
        if change.seq == 1:
            raise RuntimeError("It cannot be delivered.")
        delivered.append(change.seq)

    tailer = LogTailer(
        "posts",
        SimpleNamespace(release=lambda collection: None),
        connection.alias,
        deliver=deliver,
        on_position_lost=lambda: None,
        announce=lambda event: None,
        is_complete=lambda change: True,
        restore=list,
    )
    tailer._started, tailer.epoch = True, "e"
    with caplog.at_level(logging.ERROR):
        for seq in (1, 2):
            tailer.receive(Change("1", "posts", "created", "1", "t", "", epoch="e", seq=seq))
    tailer.stop()
    assert delivered == [2]
    assert tailer.position.seq == 2
    assert caplog.text.count("Event 1 of 'posts' cannot be delivered") == 1

"""A renamed collection keeps its former names: for clients, in cursors and in the log."""

import pytest
from asgiref.sync import sync_to_async
from django.db import connections

from django_cocobase_realtime import notify_change
from django_cocobase_realtime.capture.triggers import install, remove
from django_cocobase_realtime.checks import check_settings
from django_cocobase_realtime.declarations.registry import UnknownCollection, registry
from django_cocobase_realtime.models import LogEvent, Stream
from django_cocobase_realtime.testing import capture_events
from tests.app.models import Post

pytestmark = pytest.mark.django_db(transaction=True)

OLD = {"COLLECTIONS": {"posts": "app.Post"}}
NEW = {"COLLECTIONS": {"articles": {"model": "app.Post", "aliases": ["posts", "texts"]}}}


def test_collection_is_found_by_each_of_its_names(settings):
    settings.COCOBASE_REALTIME = NEW
    (collection,) = registry
    assert [registry.get(name) for name in ("articles", "posts", "texts")] == [collection] * 3
    assert (collection.name, collection.stream) == ("articles", "posts")
    settings.COCOBASE_REALTIME = OLD
    with pytest.raises(UnknownCollection):
        registry.get("texts")


def test_changes_are_logged_in_the_stream_of_the_first_name(settings):
    settings.COCOBASE_REALTIME = NEW
    with capture_events() as events:
        post = Post.objects.create(title="a")
        notify_change("articles", "updated", post)
        notify_change("texts", "updated", post)
    assert [event.collection for event in events] == ["articles"] * 3
    assert {event.collection for event in LogEvent.objects.all()} == {"posts"}


async def test_client_gets_the_same_stream_by_each_name(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = NEW
    async with realtime(token=api_key) as client:
        replies = [await client.subscribe(name) for name in ("articles", "posts")]
        assert [reply["collection"] for reply in replies] == ["articles", "posts"]
        assert replies[0]["cursor"] == replies[1]["cursor"]
        assert replies[0]["scope"] == replies[1]["scope"]
        await Post.objects.acreate(title="a")
        events = [await client.receive("event") for _ in replies]
        assert [event["collection"] for event in events] == ["articles", "posts"]
        assert [event["subscriptions"] for event in events] == [["articles"], ["posts"]]
        assert events[0]["cursor"] == events[1]["cursor"]
        reply = await client.request({"type": "unsubscribe", "collection": "posts"})
        assert reply["type"] == "unsubscribed"
    async with realtime(token=api_key) as client:
        reply = await client.subscribe("posts", since=replies[0]["cursor"])
        assert reply["resumed"]
        event = await client.receive("event")
        assert (event["collection"], event["replayed"]) == ("posts", True)
    assert await Stream.objects.acount() == 1


@pytest.mark.parametrize("name", ["articles", "posts"])
async def test_client_resumes_after_the_collection_was_renamed(realtime, api_key, settings, name):
    settings.COCOBASE_REALTIME = OLD
    async with realtime(token=api_key) as client:
        reply = await client.subscribe("posts")
    await Post.objects.acreate(title="a")
    settings.COCOBASE_REALTIME = NEW
    await Post.objects.acreate(title="b")
    async with realtime(token=api_key) as client:
        reply = await client.subscribe(name, since=reply["cursor"], scope=reply["scope"])
        assert reply["resumed"]
        titles = [(await client.receive("event"))["document"]["data"]["title"] for _ in "ab"]
        assert titles == ["a", "b"]


async def test_serializer_and_collection_without_log_work_by_each_name(realtime, api_key, settings):
    for durable in (True, False):
        options = {"serializer": lambda post: {"name": post.title}, "durable": durable}
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": {"articles": {**NEW["COLLECTIONS"]["articles"], **options}}
        }
        async with realtime(token=api_key) as client:
            for name in ("articles", "texts"):
                await client.subscribe(name)
            await Post.objects.acreate(title="a")
            events = [await client.receive("event") for _ in "ab"]
            assert [event["document"]["data"] for event in events] == [{"name": "a"}] * 2


if connections["default"].vendor == "postgresql":

    async def test_triggers_of_the_former_name_are_used(realtime, api_key, settings):
        for setting in (OLD, NEW):
            (name, entry) = next(iter(setting["COLLECTIONS"].items()))
            options = {"model": entry} if isinstance(entry, str) else entry
            options = {**options, "capture": "triggers"}
            settings.COCOBASE_REALTIME = {"COLLECTIONS": {name: options}}
            await sync_to_async(install)(registry.get(name))
        try:
            await Post.objects.acreate(title="a")
        finally:
            await sync_to_async(remove)(registry.get("articles"))
        assert await LogEvent.objects.filter(collection="posts").acount() == 1
        assert await LogEvent.objects.acount() == 1


@pytest.mark.parametrize(
    ("collections", "ids"),
    [
        ({"articles": ["posts"], "texts": ["stories"]}, []),
        ({"articles": ["texts"], "texts": []}, ["E019"]),
        ({"articles": ["posts"], "texts": ["posts"]}, ["E019"]),
        ({"articles": ["articles"]}, ["E019"]),
        ({"articles": "posts"}, ["E004"]),
        ({"articles": [1]}, ["E004"]),
    ],
)
def test_alias_that_is_another_name_is_reported(settings, collections, ids):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            name: {"model": "app.Post", "aliases": aliases} for name, aliases in collections.items()
        }
    }
    errors = [m.id.rpartition(".")[2] for m in check_settings() if m.level >= 40]
    assert errors == ids

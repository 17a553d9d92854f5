"""A process follows the tables that permissions depend on, once a client asks for a collection."""

import asyncio

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime.declarations.dependency_table import hidden_stream
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.log.retention import rotate_epoch
from tests.app.models import Author, Post

pytestmark = pytest.mark.django_db(transaction=True)
HIDDEN = hidden_stream("default")


@pytest.fixture(autouse=True)
def _collections(settings):
    options = {"model": "app.Post", "depends_on": ["app.Author"]}
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": options,
            "drafts": {**options, "durable": False},
            "items": "app.Item",
        },
        "LOG": {"POLL": 0.1},
    }


def followed():
    """Return the numbers of the last changes that are known of hidden streams."""
    return [feed.tailer.position.seq for feed in Hub.current().topics.related]


async def test_change_is_known_before_the_event_of_a_later_commit(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        assert followed() == [0]
        for number in range(1, 20):
            await Author.objects.acreate(name="a")
            await Post.objects.acreate(title="b")
            await client.receive("event")
            assert followed() == [number]


@pytest.mark.parametrize("name", ["posts", "drafts"])
async def test_subscription_begins_after_all_changes(realtime, api_key, name):
    async with realtime(token=api_key) as client:
        await client.subscribe(name)
        for number in range(1, 20):
            await Author.objects.acreate(name="a")
            await client.subscribe(name, subscription="again")
            assert followed() == [number]


async def test_change_is_known_without_an_event(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await Author.objects.acreate(name="a")
        async with asyncio.timeout(5):
            while followed() != [1]:
                await asyncio.sleep(0.01)


async def test_stream_is_followed_until_the_last_client_has_left(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("items")
        assert followed() == []
        await client.subscribe("posts")
        assert HIDDEN in Hub.current().topics.positions()["default"]
        await client.request({"type": "unsubscribe", "subscription": "posts"})
        assert followed() == [0]
    assert followed() == []


async def test_new_epoch_of_the_hidden_stream_loses_nothing(realtime, api_key):
    """Anything may have changed, so that all key sets are read again."""
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await Author.objects.acreate(name="a")
        await sync_to_async(rotate_epoch)("default", [HIDDEN])
        await Author.objects.acreate(name="b")
        for _ in range(3):
            await Post.objects.acreate(title="c")
            await client.receive("event")

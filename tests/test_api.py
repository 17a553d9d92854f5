"""The functions of the public API: broadcast, notify_change, disconnect."""

from decimal import Decimal

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from django_cocobase_realtime import (
    abroadcast,
    broadcast,
    capture_disabled,
    disconnect,
    notify_change,
    send_to_user,
)
from django_cocobase_realtime.testing import capture_events
from tests.app.models import Author, Post

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


async def test_broadcast_reaches_members_of_the_room(realtime, api_key):
    async with realtime(token=api_key) as app:
        await app.join("news")
        await abroadcast("news", {"price": Decimal("1.50")})
        await sync_to_async(broadcast)("news", "two")
        await abroadcast("news", "elsewhere", project="other")
        first, second = await app.receive("event"), await app.receive("event")
        assert (first["message"], first["sender"]) == ({"price": "1.50"}, None)
        assert second["message"] == "two"
        assert await app.receive_nothing()


def test_broadcast_is_sent_when_transaction_commits():
    with capture_events() as events:
        with transaction.atomic():
            broadcast("r", 1)
            assert events == []
        assert [e.message for e in events] == [1]
        with pytest.raises(KeyError), transaction.atomic():
            broadcast("r", 2)
            raise KeyError
        assert [e.message for e in events] == [1]
        with transaction.atomic(using="other"):
            broadcast("r", 3, using="other")
            assert len(events) == 1


@pytest.mark.parametrize("room", ["", None, 5])
def test_broadcast_without_room_name_is_rejected(room):
    with pytest.raises(TypeError):
        broadcast(room, 1)


@pytest.mark.parametrize("room", ["a\ud800", "a\0"])
def test_broadcast_to_room_that_no_client_can_join_is_rejected(room):
    with pytest.raises(ValueError, match="must not contain"):
        broadcast(room, 1)


def test_broadcast_of_value_that_is_not_json_is_rejected():
    with pytest.raises(TypeError):
        broadcast("r", object())


@pytest.mark.parametrize("message", ["x" * 999, "字" * 333, [Decimal("1.5")] * 200])
async def test_message_that_is_larger_than_an_event_is_rejected(message, settings):
    """Otherwise the server might refuse to send it, and close the connections of the room."""
    settings.COCOBASE_REALTIME = {"LIMITS": {"event_bytes": 1000}}
    with pytest.raises(ValueError, match="1000 bytes at most"):
        await sync_to_async(broadcast)("r", message)
    with pytest.raises(ValueError, match="1000 bytes at most"):
        await abroadcast("r", message)
    with pytest.raises(ValueError, match="1000 bytes at most"):
        await sync_to_async(send_to_user)("1", message)
    await abroadcast("r", message[:150])


def test_notify_change_announces_change_without_signal():
    author = Author.objects.create(name="a")
    with capture_disabled():
        Author.objects.filter(pk=author.pk).update(name="b")
    with capture_events() as events:
        notify_change("authors", "updated", author)
        notify_change("authors", "created", author)
        notify_change("authors", "deleted", author)
    assert [(e.op, (e.after or e.before)["name"]) for e in events] == [
        ("updated", "b"),
        ("created", "b"),
        ("deleted", "a"),
    ]
    with pytest.raises(LookupError):
        notify_change("nothing", "updated", author)
    with pytest.raises(TypeError):
        notify_change("posts", "updated", author)
    with pytest.raises(ValueError, match="changed"):
        notify_change("authors", "changed", author)


async def test_disconnect_closes_connections_of_user_or_key(realtime, user, api_key):
    async with realtime(user=user) as ada, realtime(token=api_key) as app:
        await sync_to_async(disconnect)(user=user, project="other")
        assert (await ada.request({"type": "ping"}))["type"] == "pong"
        await sync_to_async(disconnect)(user=user)
        assert await ada.closed() == 4500
        assert (await app.request({"type": "ping"}))["type"] == "pong"
        await sync_to_async(disconnect)(key=api_key.split("_")[1])
        assert await app.closed() == 4500
    with pytest.raises(TypeError):
        disconnect()


def test_notify_change_announces_one_collection_only():
    post = Post.objects.create(title="x")
    with capture_events() as events:
        notify_change("posts", "updated", post)
    assert [e.collection for e in events] == ["posts"]

"""The whole path in one process: model, signal, log, hub, client."""

import asyncio
from datetime import UTC, datetime

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime.models import ApiKey
from tests.app.models import Author, Post
from tests.support.tokens import create_token


async def test_change_is_sent_to_matching_subscription(realtime, api_key):
    async with realtime(token=api_key) as client:
        reply = await client.subscribe("posts", filters={"status": "published"}, id=7)
        assert reply["id"] == 7
        assert reply["subscription"] == "posts"
        assert reply["filters"] == {"status": "published"}
        await Post.objects.acreate(title="draft")
        post = await Post.objects.acreate(title="New Post", status="published", rating="4.5")
        event = await client.receive("event")
        assert event["collection"] == "posts"
        assert event["event"] == "created"
        assert event["document"]["id"] == str(post.pk)
        assert event["document"]["data"]["title"] == "New Post"
        assert event["document"]["data"]["rating"] == "4.50"
        assert event["subscriptions"] == ["posts"]
        assert datetime.fromisoformat(event["at"]).tzinfo is not None
        post.title = "Changed"
        await post.asave()
        event = await client.receive("event")
        assert event["event"] == "updated"
        assert set(event["changed"]) == {"title", "updated_at"}
        await post.adelete()
        event = await client.receive("event")
        assert event["event"] == "deleted"
        assert event["document"]["data"]["title"] == "Changed"
        assert await client.receive_nothing()


async def test_change_matching_several_subscriptions_is_sent_once_per_projection(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await client.subscribe("posts", subscription="mine", filters={"status": "draft"})
        await client.subscribe("posts", subscription="titles", fields=["title"])
        await client.subscribe("posts", subscription="gone", events=["deleted"])
        await Post.objects.acreate(title="x")
        frames = [await client.receive("event"), await client.receive("event")]
        assert {tuple(f["subscriptions"]) for f in frames} == {("posts", "mine"), ("titles",)}
        (narrow,) = [f for f in frames if f["subscriptions"] == ["titles"]]
        assert narrow["document"]["data"] == {"title": "x"}
        assert await client.receive_nothing()


async def test_subscription_is_replaced_unless_the_new_one_is_refused(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", filters={"status": "draft"})
        reply = await client.request(
            {"type": "subscribe", "collection": "posts", "filters": {"nonsense": 1}, "id": "a"}
        )
        assert (reply["code"], reply["id"]) == ("invalid_filter", "a")
        assert "title" in reply["message"]
        await Post.objects.acreate(title="still subscribed")
        assert (await client.receive("event"))["document"]["data"]["title"] == "still subscribed"
        await client.subscribe("posts", filters={"status": "published"})
        await Post.objects.acreate(title="not matching")
        assert await client.receive_nothing()
        await Post.objects.acreate(title="matching", status="published")
        assert (await client.receive("event"))["document"]["data"]["title"] == "matching"


async def test_unsubscribed_subscription_receives_nothing(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await client.subscribe("posts", subscription="b")
        reply = await client.request({"type": "unsubscribe", "subscription": "b", "id": 1})
        assert reply == {"type": "unsubscribed", "subscription": "b", "id": 1}
        reply = await client.request({"type": "unsubscribe", "collection": "posts"})
        assert reply == {"type": "unsubscribed", "collection": "posts"}
        reply = await client.request({"type": "unsubscribe", "collection": "posts"})
        assert reply["code"] == "not_subscribed"
        await Post.objects.acreate(title="x")
        assert await client.receive_nothing()


async def test_join_broadcast_and_leave(realtime, api_key, user):
    async with realtime(token=api_key) as app, realtime(user=user) as ada:
        assert (await app.join("chat-123"))["participants"] == 1
        joined = await ada.join("chat-123", id=3)
        assert joined["participants"] == 2
        member = {"id": str(user.pk), "name": "ada", "state": {}}
        assert member in joined["members"]
        presence = await app.receive("presence")
        assert presence == {
            "type": "presence",
            "room": "chat-123",
            "event": "joined",
            "member": member,
            "participants": 2,
        }
        message = {"user": "John", "text": "Hello everyone!"}
        await ada.send({"type": "broadcast", "room": "chat-123", "message": message, "id": 4})
        event = await app.receive("event")
        assert event["event"] == "broadcast"
        assert event["room"] == "chat-123"
        assert event["message"] == message
        assert event["sender"] == {"id": str(user.pk), "name": "ada", "verified": True}
        frames = [await ada.receive(), await ada.receive()]
        assert {f["type"] for f in frames} == {"event", "sent"}
        await ada.send({"type": "broadcast", "room": "chat-123", "message": 1, "echo": False})
        assert (await app.receive("event"))["message"] == 1
        assert await ada.receive_nothing()
        assert await ada.request({"type": "leave", "room": "chat-123"}) == {
            "type": "left",
            "room": "chat-123",
        }
        reply = await ada.request({"type": "broadcast", "room": "chat-123", "message": 2})
        assert reply["code"] == "not_joined"
        assert (await ada.request({"type": "leave", "room": "x"}))["code"] == "not_joined"
        presence = await app.receive("presence")
        assert (presence["event"], presence["participants"]) == ("left", 1)
        assert await app.receive_nothing()


async def test_rooms_of_different_projects_are_separate(realtime, transactional_db):
    create_key = sync_to_async(ApiKey.objects.create_key)
    one = (await create_key("one", project="one"))[1]
    two = (await create_key("two", project="two"))[1]
    async with realtime(token=one) as first, realtime(token=two) as second:
        await first.join("r")
        assert (await second.join("r"))["participants"] == 1
        await first.send({"type": "broadcast", "room": "r", "message": "secret"})
        assert (await first.receive("event"))["sender"] is None
        assert await second.receive_nothing()


@pytest.mark.parametrize("bad", ["crk_12345678_nonsense", "a.b.c", "x", "", "é" * 5000, "\x00"])
async def test_invalid_credential_closes_connection(realtime, transactional_db, bad):
    async with realtime(authenticate=False) as client:
        await client.send({"type": "auth", "token": bad, "id": 1})
        reply = await client.receive("error")
        if reply["code"] == "bad_request":  # NUL is not accepted in JSON
            return
        assert (reply["code"], reply.get("id")) in {
            ("authentication_failed", 1),
            ("too_large", 1),
        }
        if reply["code"] == "too_large":
            return
        assert (await client.receive("closing"))["code"] == 4500
        assert await client.closed() == 4500


async def test_request_before_auth_closes_connection(realtime, transactional_db):
    async with realtime(authenticate=False) as client:
        assert await client.request({"type": "ping", "id": 1}) == {"type": "pong", "id": 1}
        reply = await client.request({"type": "subscribe", "collection": "posts"})
        assert reply["code"] == "not_authenticated"
        assert await client.closed() == 4502


async def test_connection_without_auth_is_closed_after_timeout(
    realtime, transactional_db, settings
):
    settings.COCOBASE_REALTIME = {"LIMITS": {"auth_timeout": 0.1}}
    async with realtime(authenticate=False) as client:
        assert await client.closed() == 4501


async def test_expired_token_closes_connection_unless_refreshed(realtime, user):
    async with (
        realtime(token=create_token(user, 2)) as client,
        realtime(token=create_token(user, 2)) as other,
    ):
        reply = await client.request({"type": "auth", "token": create_token(user, 60), "id": 9})
        assert reply["type"] == "authenticated"
        assert reply["user"] == {"id": str(user.pk), "name": "ada"}
        assert await other.closed() == 4110
        assert await client.request({"type": "ping"}) == {"type": "pong"}


async def test_refresh_with_token_of_another_user_closes_connection(
    realtime, user, django_user_model
):
    bob = await django_user_model.objects.acreate(username="bob")
    async with realtime(token=create_token(user)) as client:
        reply = await client.request({"type": "auth", "token": "nonsense"})
        assert reply["code"] == "authentication_failed"
        assert (await client.request({"type": "ping"}))["type"] == "pong"
        reply = await client.request({"type": "auth", "token": create_token(bob)})
        assert reply["code"] == "authentication_failed"
        assert await client.closed() == 4500


async def test_revoked_key_closes_connection_at_once(realtime, api_key):
    async with realtime(token=api_key) as client:
        key = await ApiKey.objects.aget()
        await sync_to_async(key.revoke)()
        assert await client.closed(1) == 4500


async def test_key_revoked_without_signal_closes_connection_within_five_seconds(realtime, api_key):
    async with realtime(token=api_key) as client:
        await ApiKey.objects.aupdate(revoked_at=datetime.now(UTC))
        assert await client.closed(5) == 4500


async def test_deactivated_user_is_disconnected(realtime, user):
    async with realtime(token=create_token(user)) as client:
        user.is_active = False
        await user.asave()
        assert await client.closed(5) == 4500


async def test_connections_per_user_are_limited(realtime, user, settings):
    settings.COCOBASE_REALTIME = {"LIMITS": {"connections_per_user": 1}}
    async with realtime(user=user) as first, realtime(user=user, authenticate=False) as second:
        await second.send({"type": "auth"})
        assert await second.closed() == 4504
        assert (await first.request({"type": "ping"}))["type"] == "pong"


async def test_connections_per_address_are_limited(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {"LIMITS": {"connections_per_address": 1}}
    async with realtime(token=api_key), realtime(authenticate=False) as second:
        closing = await second.receive("closing")
        assert (closing["code"], closing["retry_after_ms"]) == (4131, 5000)
        assert await second.closed() == 4131


async def test_too_many_bad_requests_close_connection(realtime, api_key):
    bad = ["{", "[]", '{"type": 1}', '{"type": "nope"}', '{"type": "join"}']
    async with realtime(token=api_key) as client:
        for text in bad:
            await client.send(text)
            assert (await client.receive("error"))["code"] in {"bad_request", "unknown_type"}
        # refused requests are not counted as bad requests
        assert (await client.request({"type": "subscribe", "collection": "nope"}))["code"] == (
            "unknown_collection"
        )
        await client.send("{")
        assert (await client.receive("error"))["code"] == "bad_request"
        assert await client.closed() == 4503


async def test_exceeded_limits_are_answered_with_errors(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post"},
        "LIMITS": {"subscriptions": 1, "rooms": 1, "message_bytes": 600, "broadcast_rate": (1, 1)},
    }
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        more = {"type": "subscribe", "collection": "posts", "subscription": "b"}
        assert (await client.request(more))["code"] == "limit_exceeded"
        await client.join("a")
        assert (await client.request({"type": "join", "room": "b"}))["code"] == "limit_exceeded"
        await client.join("a")
        long = {"type": "join", "room": "x" * 200}
        assert (await client.request(long))["code"] == "limit_exceeded"
        assert (await client.request({"type": "join", "room": "y" * 700}))["code"] == "too_large"
        broadcast = {"type": "broadcast", "room": "a", "message": 1, "echo": False, "id": 1}
        assert (await client.request(broadcast))["type"] == "sent"
        refused = await client.request(broadcast)
        assert refused["code"] == "rate_limited"
        assert 0 < refused["retry_after_ms"] <= 1001


async def test_document_too_large_is_sent_without_data(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post"},
        "LIMITS": {"event_bytes": 1000},
    }
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        post = await Post.objects.acreate(title="x", body="y" * 2000)
        event = await client.receive("event")
        assert event["document"] == {"id": str(post.pk)}
        assert event["truncated"] is True


async def test_secret_looking_fields_are_not_sent(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("authors")
        await Author.objects.acreate(name="A", password="hunter2")
        assert (await client.receive("event"))["document"]["data"] == {"name": "A"}
        reply = await client.request(
            {"type": "subscribe", "collection": "authors", "filters": {"password": "hunter2"}}
        )
        assert reply["code"] == "invalid_filter"
        assert "password" not in reply["message"].replace("'password' cannot", "")


async def test_many_clients_receive_every_change_in_order(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": "app.Post"},
        "LIMITS": {"unauthenticated_per_address": 100},
    }
    async with asyncio.timeout(30):
        contexts = [realtime(token=api_key) for _ in range(20)]
        clients = [await context.__aenter__() for context in contexts]
        try:
            for client in clients:
                await client.subscribe("posts")
            for number in range(30):
                await Post.objects.acreate(title=str(number))
            for client in clients:
                titles = [(await client.receive("event"))["document"]["data"] for _ in range(30)]
                assert [t["title"] for t in titles] == [str(n) for n in range(30)]
        finally:
            for context in contexts:
                await context.__aexit__(None, None, None)

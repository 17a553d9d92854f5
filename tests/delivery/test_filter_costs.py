"""The limit ``filter_cost``, which all connections of a user share."""

from contextlib import AsyncExitStack

import pytest

from tests.app.models import Post

# what `contains` on the field body costs is about 33 µs
LIMIT = 90


@pytest.fixture(autouse=True)
def limit(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "permission": "tests.support.permissions.Models"}
        },
        "LIMITS": {"filter_cost": LIMIT},
    }


@pytest.fixture
def admin(user):
    user.is_superuser = True
    user.save()
    return user


def containing(text, name="s", **options):
    filters = {"body_contains": text}
    return {
        "type": "subscribe",
        "collection": "posts",
        "subscription": name,
        "filters": filters,
        **options,
    }


async def test_filters_of_a_connection_are_limited(realtime, admin):
    async with realtime(user=admin) as client:
        for number in range(2):
            reply = await client.request(containing(f"text {number}", f"s{number}"))
            assert reply["type"] == "subscribed"
        refused = await client.request(containing("another", "s2", id=5) | {"transitions": True})
        assert (refused["code"], refused["id"]) == ("limit_exceeded", 5)
        assert "90 µs" in refused["message"]
        # the subscription that a refused one should replace continues
        refused = await client.request(containing("another", "s1") | {"transitions": True})
        assert refused["code"] == "limit_exceeded"
        # filters that cost little are still accepted, and so are equal ones
        await client.subscribe("posts", subscription="cheap", filters={"status": "a"})
        assert (await client.request(containing("text 0", "equal")))["type"] == "subscribed"
        # a replaced subscription is not counted
        assert (await client.request(containing("instead", "s1")))["type"] == "subscribed"
        await Post.objects.acreate(title="t", body="INSTEAD of")
        assert (await client.receive("event"))["subscriptions"] == ["s1"]
        await client.request({"type": "unsubscribe", "subscription": "s1"})
        reply = await client.request(containing("another", "s3"))
        assert reply["type"] == "subscribed"


async def test_connections_of_one_user_are_counted_together(realtime, admin):
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(realtime(user=admin)) for _ in range(4)]
        replies = [await c.request(containing(f"text {n}")) for n, c in enumerate(clients)]
        assert [reply["type"] for reply in replies] == ["subscribed"] * 2 + ["error"] * 2
        # the same filter on all of them costs once
        replies = [await client.request(containing("text 0", "same")) for client in clients]
        assert [reply["type"] for reply in replies] == ["subscribed"] * 4


async def test_closed_connection_is_not_counted(realtime, admin):
    for number in range(4):
        async with realtime(user=admin) as client:
            for part in range(2):
                request = containing(f"text {number} {part}", f"s{part}")
                assert (await client.request(request))["type"] == "subscribed"


async def test_users_do_not_share_the_limit(realtime, admin, django_user_model):
    other = await django_user_model.objects.acreate(username="bob", is_superuser=True)
    async with realtime(user=admin) as first, realtime(user=other) as second:
        for number in range(2):
            for client in (first, second):
                reply = await client.request(containing(f"{client} {number}", f"s{number}"))
                assert reply["type"] == "subscribed"

"""The limit ``filter_cost``, which all connections of a user share, or of a key at an address."""

from contextlib import AsyncExitStack

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.permissions import Permission
from django_cocobase_realtime.routing import realtime_application
from tests.app.models import Post
from tests.support.tokens import KEY, create_token

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


class Everything(Permission):
    def visible_to(self, identity):
        return {}


class EachRow(Everything):
    def has_object_permission(self, identity, instance):
        return True


def declare(settings, permission, **options):
    collection = {"model": "app.Post", "permission": f"{__name__}.{permission.__name__}"}
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": collection},
        "LIMITS": {"filter_cost": LIMIT},
        **options,
    }


def at(address):
    """Return the application as a client at an IP address reaches it."""
    application = realtime_application()

    async def call(scope, receive, send):
        await application({**scope, "client": (address, 1)}, receive, send)

    return call


async def outcomes(*requests):
    """Return whether each of the requests, given as pairs with their client, was accepted."""
    replies = [await client.request(request) for client, request in requests]
    assert {reply.get("code", "limit_exceeded") for reply in replies} == {"limit_exceeded"}
    return [reply["type"] == "subscribed" for reply in replies]


async def test_subject_without_django_user_is_counted_together(
    realtime, settings, transactional_db
):
    declare(settings, Everything, JWT={"KEY": KEY, "USER_LOOKUP": None})
    async with AsyncExitStack() as stack:
        ann = [
            await stack.enter_async_context(realtime(token=create_token("ann"))) for _ in range(4)
        ]
        bob = await stack.enter_async_context(realtime(token=create_token("bob")))
        requests = [(client, containing(f"text {n}")) for n, client in enumerate(ann)]
        assert await outcomes(*requests) == [True, True, False, False]
        assert await outcomes((bob, containing("text of bob"))) == [True]


@pytest.mark.parametrize("transitions_first", [True, False])
async def test_filter_with_transitions_counts_beside_the_one_without(
    realtime, admin, transitions_first
):
    plain, dearer = containing("text", "s1"), containing("text", "s2", transitions=True)
    async with realtime(user=admin) as client, realtime(user=admin) as other:
        requests = [(client, plain), (other, dearer)]
        # together more than the limit, whichever is first
        assert await outcomes(*requests[:: -1 if transitions_first else 1]) == [True, False]


async def test_each_subscription_with_a_row_permission_is_counted(realtime, settings, admin):
    """The filter of a client is evaluated after the permission, for each subscription."""
    declare(settings, EachRow)
    async with realtime(user=admin) as client, realtime(user=admin) as other:
        requests = [(client, containing("text", "s1")), (client, containing("text", "s2"))]
        assert await outcomes(*requests, (other, containing("text"))) == [True, False, False]
        assert await outcomes((client, containing("instead", "s1"))) == [True]


async def test_connections_of_a_key_are_counted_together_per_address(realtime, settings, api_key):
    declare(settings, Everything)
    other_key = (await sync_to_async(ApiKey.objects.create_key)("other"))[1]
    async with AsyncExitStack() as stack:

        async def open_at(address, key=api_key):
            context = realtime(token=key, application=at(address))
            return await stack.enter_async_context(context)

        one = [await open_at("10.0.0.1") for _ in range(4)]
        requests = [(client, containing(f"text {n}")) for n, client in enumerate(one)]
        assert await outcomes(*requests) == [True, True, False, False]
        assert (
            await outcomes(*((client, containing("text 0", "same")) for client in one))
            == [True] * 4
        )
        # visitors at other addresses have their own share, and so have other keys
        others = [await open_at(f"10.0.0.{n}") for n in range(2, 5)]
        others.append(await open_at("10.0.0.1", other_key))
        requests = [(client, containing(f"other {n}")) for n, client in enumerate(others)]
        assert await outcomes(*requests) == [True] * 4


async def test_cheap_filters_of_a_key_are_not_counted(realtime, settings, api_key):
    declare(settings, Everything)
    settings.COCOBASE_REALTIME["LIMITS"] = {"filter_cost": 8000}
    async with realtime(token=api_key) as client:
        requests = [
            (client, {"type": "subscribe", "collection": "posts", "filters": {"status": str(n)}})
            for n in range(50)
        ]
        assert await outcomes(*requests) == [True] * 50

"""Scopes of keys that change while clients are connected, and `disconnect(reconnect=True)`."""

import asyncio

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime import disconnect
from django_cocobase_realtime.auth.api_key import ApiKeyAuthenticator
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.identity import AccessScope
from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.permissions import Permission
from tests.app.models import Post
from tests.support.blocking_permissions import Gate
from tests.support.frames import receive_title

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _configure(settings):
    collections = {"posts": "app.Post", "messages": "app.Message"}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": collections, "REVOCATION_POLL": 0.2}


class Gated(Permission):
    """Answers when the test lets it, for collections and rooms."""

    def can_subscribe(self, identity, filters):
        return Gate.release.wait(10)

    def can_join(self, identity, room):
        return Gate.release.wait(10)


create_key = sync_to_async(ApiKey.objects.create_key)
CHANGES = [
    {"collections": ["messages"]},
    {"collections": ["posts", "messages"]},
    {"collections": None},
    {"rooms": ["*"]},
    {"read_only": True},
]


@pytest.mark.parametrize(
    ("change", "is_saved"), [*((change, False) for change in CHANGES), (CHANGES[0], True)], ids=str
)
async def test_changed_scope_closes_connections_of_the_key(realtime, change, is_saved):
    key, text = await create_key("k", collections=["posts"], rooms=["lobby"])
    other = (await create_key("other", collections=["posts"]))[1]
    async with realtime(token=text) as client, realtime(token=other) as unaffected:
        await client.subscribe("posts")
        await unaffected.subscribe("posts")
        if is_saved:
            for name, value in change.items():
                setattr(key, name, value)
            await key.asave()
        else:
            await ApiKey.objects.filter(pk=key.pk).aupdate(**change)
        assert await client.closed() == 4201
        await Post.objects.acreate(title="x")
        assert await receive_title(unaffected) == "x"
    async with realtime(token=text) as client:  # the key is valid, with its new scope
        reply = await client.request({"type": "subscribe", "collection": "posts"})
        assert (reply["type"] == "error") is (change == CHANGES[0])


async def test_unrelated_change_of_key_closes_nothing(realtime):
    key, text = await create_key("k", collections=["posts", "messages"], rooms=["a", "b"])
    async with realtime(token=text) as client:
        await client.subscribe("posts")
        await ApiKey.objects.filter(pk=key.pk).aupdate(
            name="renamed", collections=["messages", "posts"]
        )
        assert await client.receive_nothing(0.7)


@pytest.mark.parametrize(
    ("change", "code"), [({"read_only": True}, 4201), ({"project": "b"}, 4500)]
)
async def test_only_connections_from_before_the_change_are_closed(realtime, change, code):
    """Both connections have the same key, but different identities."""
    key, text = await create_key("k")
    for first in ("old", "new"):  # the order in which connections are checked
        async with realtime(token=text) as old:
            await ApiKey.objects.filter(pk=key.pk).aupdate(**change)
            async with realtime(token=text) as new:
                if first == "new":
                    connections = Hub.current().connections
                    id = next(iter(connections))
                    connections[id] = connections.pop(id)
                assert await old.closed() == code
                assert await new.receive_nothing(0.5)
        await ApiKey.objects.filter(pk=key.pk).aupdate(read_only=False, project="default")


async def test_auth_with_a_narrower_key_of_the_same_user(realtime, user):
    wide = (await create_key("wide", user=user))[1]
    posts = (await create_key("posts", user=user, collections=["posts"]))[1]
    reader = (await create_key("reader", user=user, collections=["posts"], read_only=True))[1]
    async with realtime(token=wide) as client, realtime(token=wide) as other:
        for each in (client, other):
            await each.subscribe("posts")
        await client.join("lobby")
        await client.send({"type": "auth", "token": posts})
        await client.receive("authenticated")
        await Post.objects.acreate(title="x")
        assert await receive_title(client) == "x"  # what is allowed continues
        reply = await client.request({"type": "subscribe", "collection": "messages"})
        assert reply["code"] == "unknown_collection"
        await client.send({"type": "auth", "token": reader})
        assert await client.closed() == 4201  # it was a member of the room
        assert await receive_title(other) == "x"
        await other.subscribe("messages")
        await other.send({"type": "auth", "token": posts})
        assert await other.closed() == 4201


async def test_auth_again_with_a_key_whose_scope_was_changed(realtime, settings):
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "REVOCATION_POLL": 5}
    key, text = await create_key("k")
    async with realtime(token=text) as client:
        await client.subscribe("posts")
        await ApiKey.objects.filter(pk=key.pk).aupdate(collections=["messages"])
        await client.send({"type": "auth", "token": text})
        assert await client.closed(2) == 4201


async def test_scope_is_described_and_compared_regardless_of_order(transactional_db):
    key, text = await create_key("k", collections=["b", "a"], rooms=[], read_only=True)
    identity = await sync_to_async(ApiKeyAuthenticator().authenticate)(text, {})
    assert identity.scope == AccessScope(frozenset("ab"), (), True) == key.scope
    assert str(key.scope) == "collections: a, b; rooms: none; read-only"
    assert str(AccessScope()) == "all"
    for attribute in ("collections", "rooms"):
        for names in ("lobby", ["a", 1]):
            with pytest.raises(TypeError, match=f"{attribute} must be names"):
                await create_key("k", **{attribute: names})
        for names in ([""], ["a", " "]):
            with pytest.raises(ValueError, match="must not be empty"):
                await create_key("k", **{attribute: names})
    with pytest.raises(ValueError, match="cannot be read-only"):
        await create_key("k", can_publish=True, read_only=True)


def test_names_of_a_scope_may_be_in_any_container():
    """As authenticators of a project may give them."""
    scope = AccessScope(frozenset({"posts"}), ("lobby", "a-*"))
    for names, rooms in ((["posts"], ["lobby", "a-*"]), ({"posts"}, iter(["lobby", "a-*"]))):
        other = AccessScope(names, rooms)
        assert other == scope
        assert hash(other) == hash(scope)
    for names in ("posts", b"posts", [1], [None], 1, True):
        for attribute in ("collections", "rooms"):
            with pytest.raises(TypeError, match=f"{attribute} must be names"):
                AccessScope(**{attribute: names})


async def test_disconnect_lets_clients_come_back_and_load_data_again(realtime, user):
    key, text = await create_key("k")
    async with realtime(token=text) as app, realtime(user=user) as ada:
        reply = await app.subscribe("posts")
        await sync_to_async(disconnect)(key=key.prefix, reconnect=True)
        assert await app.closed() == 4201
        await sync_to_async(disconnect)(user=user, reconnect=True)
        assert await ada.closed() == 4201
    await Post.objects.acreate(title="x")
    async with realtime(token=text) as app:
        # both clients send an empty scope after 4201
        options = {"since": reply["cursor"], "scope": "", "snapshot": True}
        again = await app.subscribe("posts", **options)
        assert again["resync"] == {"reason": "scope_changed"}
        assert len((await app.receive("snapshot"))["documents"]) == 1
        await sync_to_async(disconnect)(key=key.prefix)
        assert await app.closed() == 4500


@pytest.mark.parametrize("who", ["key", "visitor"])
async def test_time_does_not_reveal_what_is_out_of_scope(realtime, settings, who):
    """The permissions that others wait for do not delay the refusal."""
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "public": True},
            "secret": {
                "model": "app.Message",
                "permission": f"{__name__}.Gated",
                "aliases": ["former"],
            },
        },
        "ROOMS": {"hidden": {"permission": f"{__name__}.Gated"}, "*": {}},
        "AUTHENTICATORS": [
            "django_cocobase_realtime.auth.anonymous.Anonymous",
            "django_cocobase_realtime.auth.api_key.ApiKeyAuthenticator",
        ],
        "WORKERS": 4,
    }
    scoped = (await create_key("k", collections=["posts"], rooms=[]))[1]
    tokens = [(await create_key(name))[1] for name in "abcde"]
    Gate.release.clear()
    try:
        async with (
            realtime(token=scoped if who == "key" else None) as client,
            realtime(token=tokens[0]) as one,
            realtime(token=tokens[1]) as two,
            realtime(token=tokens[2]) as three,
            realtime(token=tokens[3]) as four,
            realtime(token=tokens[4]) as five,
        ):
            # calls for one subject occupy two of the threads
            for other in (one, two, three):
                await other.send({"type": "subscribe", "collection": "secret"})
            await asyncio.sleep(0.2)
            for name in ("missing", "secret", "former"):
                reply = await client.request({"type": "subscribe", "collection": name})
                assert reply["code"] == "unknown_collection"
            for other in (four, five):
                await other.send({"type": "join", "room": "hidden"})
            await asyncio.sleep(0.2)
            for name in ("missing", "hidden"):
                reply = await client.request({"type": "join", "room": name})
                assert reply["code"] == "forbidden"
            Gate.release.set()
    finally:
        Gate.release.set()

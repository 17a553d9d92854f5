"""Attacks on what a subscription may show: each test was a leak, or looks for one."""

import asyncio
import json
import time

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group

from django_cocobase_realtime import abroadcast, disconnect, permissions_changed
from django_cocobase_realtime.routing import realtime_application
from tests.app.models import Post
from tests.delivery.test_reauthorization import seen
from tests.support.blocking_permissions import Gate

pytestmark = pytest.mark.django_db(transaction=True)


def posts(settings, permission=None, **options):
    declared = {"model": "app.Post", **options}
    if permission is not None:
        declared["permission"] = f"tests.support.{permission}"
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": declared}, "REVOCATION_POLL": 0.5}


@pytest.fixture
def eve(transactional_db, django_user_model):
    return django_user_model.objects.create_user("eve")


async def events(client, seconds=0.4):
    """What comes within some time, but for cursors."""
    found = []
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not await client.receive_nothing(left):
        frame = await client.receive()
        if frame.get("type") != "cursor":
            found.append(frame)
    return found


async def test_old_values_of_a_row_that_a_check_hid_are_not_told(realtime, api_key, settings):
    posts(settings, "permissions.FewViews")
    async with realtime(path="/realtime/collections/posts", authenticate=False) as client:
        assert (await client.request({"api_key": api_key}))["event"] == "connected"
        post = await Post.objects.acreate(title="a secret", views=50)
        post.title, post.views = "public", 1
        await post.asave()
        frame = await client.receive()
        assert frame["event"] == "update"
        assert "a secret" not in json.dumps(frame)


async def test_a_soft_deletion_shows_the_serialized_row_as_it_was(
    realtime, user, eve, api_key, settings
):
    posts(
        settings,
        "permissions.OwnPosts",
        serializer="tests.support.blocking_permissions.serialize_title",
        soft_delete={"status": "gone"},
    )
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        post = await Post.objects.acreate(title="for ada", owner=user)
        assert (await ada.receive("event"))["document"]["data"] == {"title": "for ada"}
        post.title, post.owner, post.status = "for eve", eve, "gone"
        await post.asave()
        event = await ada.receive("event")
        assert (event["event"], event["document"]["data"]) == ("deleted", {"title": "for ada"})


async def test_what_was_logged_before_there_was_a_serializer_shows_no_row(
    realtime, api_key, settings
):
    posts(settings, fields=["title"])
    async with realtime(token=api_key) as client:
        cursor = (await client.subscribe("posts"))["cursor"]
        post = await Post.objects.acreate(title="seen", body="never seen")
        post.body = "never seen either"
        await post.asave()
        assert len(await events(client)) == 2
    posts(settings, serializer="tests.support.blocking_permissions.serialize_title")
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", since=cursor)
        found = await events(client)
        assert len(found) == 2
        assert "never" not in json.dumps(found)


async def test_a_check_that_was_asked_before_rights_changed_shows_nothing(realtime, user, settings):
    posts(settings, "blocking_permissions.BlockingRowPermission")
    async with realtime(user=user) as client:
        Gate.block_next()
        await client.subscribe("posts")
        await Post.objects.acreate(title="no more")
        await asyncio.to_thread(Gate.entered.wait, 5)
        Gate.allows = False
        await sync_to_async(permissions_changed)(user)
        assert await events(client) == []
        Gate.release.set()
        assert await events(client) == []


async def test_a_door_that_closes_while_it_is_asked_lets_nobody_in(realtime, user, settings):
    settings.COCOBASE_REALTIME = {
        "ROOMS": {"*": {"permission": "tests.support.blocking_permissions.BlockingRoomPermission"}}
    }
    async with realtime(user=user) as client:
        Gate.block_next()
        await client.send({"type": "join", "room": "r"})
        await asyncio.to_thread(Gate.entered.wait, 5)
        Gate.allows = False
        await sync_to_async(permissions_changed)(user)
        await asyncio.sleep(0.3)
        Gate.release.set()
        assert (await client.receive())["code"] == "forbidden"


@pytest.mark.parametrize("what", ["group", "staff"])
async def test_rights_that_shrink_before_the_first_look_at_them_are_noticed(
    realtime, user, eve, settings, what
):
    posts(settings, "permissions.TeamPosts" if what == "group" else "permissions.IsAdminUser")
    users = type(user).objects.filter(pk=user.pk)
    if what == "group":
        await sync_to_async(user.groups.add)(await Group.objects.acreate(name="red"))
    else:
        await users.aupdate(is_staff=True)
        await user.arefresh_from_db()
    async with realtime(user=user) as client:
        await client.subscribe("posts")
        # without a signal
        if what == "group":
            await type(user).groups.through.objects.all().adelete()
        else:
            await users.aupdate(is_staff=False)
        assert await client.closed() == 4201


async def test_the_pages_of_a_snapshot_do_not_count_hidden_rows(realtime, api_key, settings):
    posts(settings, "permissions.FewViews")
    rows = [Post(title=f"{n}", views=1 if n % 200 == 7 else 50) for n in range(650)]
    await Post.objects.abulk_create(rows)
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", snapshot={"order": "id"})
        frame = await client.receive("snapshot")
        assert [d["data"]["title"] for d in frame["documents"]] == ["7", "207", "407", "607"]
        assert frame["more"] is False
        assert "truncated" not in frame


async def test_a_scope_tells_nobody_what_it_is_a_hash_of(realtime, user, settings):
    posts(settings, "permissions.OwnPosts")
    scopes = []
    for key in ("one", "one", "another"):
        settings.SECRET_KEY = key
        async with realtime(user=user) as client:
            scopes.append((await client.subscribe("posts"))["scope"])
    assert scopes[0] == scopes[1] != scopes[2]


async def test_nothing_follows_the_last_word(realtime, user, settings):
    """Whoever is being cut off hears no more, however slowly the last of it is read."""
    posts(settings)
    reads = asyncio.Event()
    reads.set()

    async def slow(scope, receive, send):
        async def later(message):
            if message["type"] == "websocket.send":
                await reads.wait()
            await send(message)

        await realtime_application()(scope, receive, later)

    async with realtime(user=user, application=slow) as client:
        await client.subscribe("posts")
        await client.join("r")
        reads.clear()
        await Post.objects.acreate(title="before")
        await asyncio.sleep(0.2)
        await sync_to_async(disconnect)(user=user)
        await asyncio.sleep(0.2)
        await Post.objects.acreate(title="after")
        await abroadcast("r", "after")
        await asyncio.sleep(0.2)
        reads.set()
        assert await seen(client) == "before"
        assert (await client.receive("closing"))["code"] == 4500
        with pytest.raises(AssertionError, match=r"websocket\.close"):
            await client.receive()


async def test_a_key_that_looks_secret_cannot_be_asked_for(realtime, api_key, settings):
    """Nothing that looks secret is in a row's image, not even its key."""
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"sessions": "sessions.Session"}}
    async with realtime(token=api_key) as client:
        reply = await client.request(
            {"type": "subscribe", "collection": "sessions", "document": "x", "snapshot": True}
        )
        assert reply["type"] == "subscribed"
        assert (await client.receive("snapshot"))["documents"] == []

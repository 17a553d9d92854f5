"""Attempts to read rows and values that an identity may not see."""

import asyncio
import json
import time

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group

from django_cocobase_realtime import abroadcast, disconnect, permissions_changed
from django_cocobase_realtime.routing import realtime_application
from tests.app.models import Post
from tests.support.blocking_permissions import Gate
from tests.support.frames import receive_title

pytestmark = pytest.mark.django_db(transaction=True)


def posts(settings, permission=None, **options):
    declared = {"model": "app.Post", **options}
    if permission is not None:
        declared["permission"] = f"tests.support.{permission}"
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": declared}, "REVOCATION_POLL": 0.5}


@pytest.fixture
def eve(transactional_db, django_user_model):
    return django_user_model.objects.create_user("eve")


async def receive_frames(client, seconds=0.4):
    """Return the frames received within some seconds, except cursor frames."""
    frames = []
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not await client.receive_nothing(left):
        frame = await client.receive()
        if frame.get("type") != "cursor":
            frames.append(frame)
    return frames


async def test_old_values_of_row_hidden_by_row_check_are_not_sent(realtime, api_key, settings):
    posts(settings, "permissions.FewViews")
    async with realtime(path="/realtime/collections/posts", authenticate=False) as client:
        assert (await client.request({"api_key": api_key}))["event"] == "connected"
        post = await Post.objects.acreate(title="a secret", views=50)
        post.title, post.views = "public", 1
        await post.asave()
        frame = await client.receive()
        assert frame["event"] == "update"
        assert "a secret" not in json.dumps(frame)


async def test_soft_deletion_sends_serialized_row_as_it_was_before(
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


async def test_event_logged_before_serializer_was_added_has_no_data(realtime, api_key, settings):
    posts(settings, fields=["title"])
    async with realtime(token=api_key) as client:
        cursor = (await client.subscribe("posts"))["cursor"]
        post = await Post.objects.acreate(title="seen", body="never seen")
        post.body = "never seen either"
        await post.asave()
        assert len(await receive_frames(client)) == 2
    posts(settings, serializer="tests.support.blocking_permissions.serialize_title")
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", since=cursor)
        frames = await receive_frames(client)
        assert len(frames) == 2
        assert "never" not in json.dumps(frames)


async def test_row_check_started_before_permissions_changed_is_discarded(realtime, user, settings):
    posts(settings, "blocking_permissions.BlockingRowPermission")
    async with realtime(user=user) as client:
        Gate.block_next()
        await client.subscribe("posts")
        await Post.objects.acreate(title="no more")
        await asyncio.to_thread(Gate.entered.wait, 5)
        Gate.allows = False
        await sync_to_async(permissions_changed)(user)
        assert await receive_frames(client) == []
        Gate.release.set()
        assert await receive_frames(client) == []


async def test_join_is_forbidden_when_permission_changes_during_its_check(realtime, user, settings):
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


@pytest.mark.parametrize("lost", ["group", "staff"])
async def test_permission_lost_without_signal_after_subscribe_closes_connection(
    realtime, user, eve, settings, lost
):
    posts(settings, "permissions.TeamPosts" if lost == "group" else "permissions.IsAdminUser")
    users = type(user).objects.filter(pk=user.pk)
    if lost == "group":
        await sync_to_async(user.groups.add)(await Group.objects.acreate(name="red"))
    else:
        await users.aupdate(is_staff=True)
        await user.arefresh_from_db()
    async with realtime(user=user) as client:
        await client.subscribe("posts")
        # these queries send no signal
        if lost == "group":
            await type(user).groups.through.objects.all().adelete()
        else:
            await users.aupdate(is_staff=False)
        assert await client.closed() == 4201


async def test_snapshot_pages_do_not_reveal_number_of_hidden_rows(realtime, api_key, settings):
    posts(settings, "permissions.FewViews")
    rows = [Post(title=f"{n}", views=1 if n % 200 == 7 else 50) for n in range(650)]
    await Post.objects.abulk_create(rows)
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", snapshot={"order": "id"})
        frame = await client.receive("snapshot")
        assert [d["data"]["title"] for d in frame["documents"]] == ["7", "207", "407", "607"]
        assert frame["more"] is False
        assert "truncated" not in frame


async def test_scope_depends_on_secret_key(realtime, user, settings):
    posts(settings, "permissions.OwnPosts")
    scopes = []
    for key in ("one", "one", "another"):
        settings.SECRET_KEY = key
        async with realtime(user=user) as client:
            scopes.append((await client.subscribe("posts"))["scope"])
    assert scopes[0] == scopes[1] != scopes[2]


async def test_no_event_is_sent_after_closing_frame(realtime, user, settings):
    """Also if the client reads the last frames slowly."""
    posts(settings)
    may_send = asyncio.Event()
    may_send.set()

    async def slow(scope, receive, send):
        async def send_later(message):
            if message["type"] == "websocket.send":
                await may_send.wait()
            await send(message)

        await realtime_application()(scope, receive, send_later)

    async with realtime(user=user, application=slow) as client:
        await client.subscribe("posts")
        await client.join("r")
        may_send.clear()
        await Post.objects.acreate(title="before")
        await asyncio.sleep(0.2)
        await sync_to_async(disconnect)(user=user)
        await asyncio.sleep(0.2)
        await Post.objects.acreate(title="after")
        await abroadcast("r", "after")
        await asyncio.sleep(0.2)
        may_send.set()
        assert await receive_title(client) == "before"
        assert (await client.receive("closing"))["code"] == 4500
        with pytest.raises(AssertionError, match=r"websocket\.close"):
            await client.receive()


async def test_primary_key_with_secret_looking_name_is_not_sent(realtime, api_key, settings):
    """A row's image has no secret-looking field, not even the primary key."""
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"sessions": "sessions.Session"}}
    async with realtime(token=api_key) as client:
        reply = await client.request(
            {"type": "subscribe", "collection": "sessions", "document": "x", "snapshot": True}
        )
        assert reply["type"] == "subscribed"
        assert (await client.receive("snapshot"))["documents"] == []


async def test_missing_and_forbidden_collections_take_the_same_time(realtime, user, settings):
    posts(settings, "permissions.Models")
    async with realtime(user=user) as ada:

        async def measure(collection):
            started = time.monotonic()
            reply = await ada.request({"type": "subscribe", "collection": collection})
            assert reply["code"] == "unknown_collection"
            return time.monotonic() - started

        await measure("posts")
        # the minimum, because other load of the machine only adds time
        times = [(await measure("posts"), await measure("nonsense")) for _ in range(15)]
        forbidden, missing = map(min, zip(*times, strict=True))
        assert abs(forbidden - missing) < 0.02, (forbidden, missing)


async def test_unreadable_fields_cannot_be_filtered_ordered_or_selected(
    realtime, api_key, settings
):
    options = {"fields": ["title", "meta"], "filters": ["title", "meta.public"]}
    posts(settings, "permissions.TitlesOnly", **options)
    async with realtime(token=api_key) as client:
        await Post.objects.acreate(title="t", body="secret", meta={"public": 1})
        for ask in (
            {"filters": {"body_startswith": "s"}},
            {
                "filters": {"meta.public": 1}
            },  # a path within a field that this identity may not read
            {"filters": {"$not": {"body": "x"}}},
            {"filters": {"[or]title": "x", "[or]body": "secret"}},
            {"filters": {"title__or__body_contains": "secret"}},
        ):
            reply = await client.request({"type": "subscribe", "collection": "posts", **ask})
            assert reply["code"] == "invalid_filter", ask
            assert "['title']" in reply["message"]
        for ask in (
            {"snapshot": {"order": "body"}},
            {"snapshot": {"order": "-meta"}},
            {"changed": ["body"]},
            {"fields": ["body"]},
        ):
            reply = await client.request({"type": "subscribe", "collection": "posts", **ask})
            assert reply["code"] == "bad_request", ask
        await client.subscribe("posts")
        post = await Post.objects.aget()
        post.body = "other"
        await post.asave()
        frame = await client.receive("event")
        assert (frame["document"]["data"], frame["changed"]) == ({"title": "t"}, [])

"""Permissions that change while a client is connected."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, Permission

from django_cocobase_realtime import permissions_changed
from tests.app.models import Post
from tests.support.frames import receive_title
from tests.support.permissions import ChangesWhileChecked
from tests.support.tokens import create_token

pytestmark = pytest.mark.django_db(transaction=True)


def posts(settings, permission):
    path = f"tests.support.permissions.{permission}"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "permission": path}},
        "REVOCATION_POLL": 0.2,
    }


async def closes_with(client, code):
    return await client.closed() == code


async def test_leaving_a_group_closes_connection_and_changes_scope(realtime, user, settings):
    posts(settings, "TeamPosts")
    red = await Group.objects.acreate(name="red")
    await user.groups.aadd(red)
    async with realtime(user=user) as ada:
        first = await ada.subscribe("posts")
        await Post.objects.acreate(title="ours", project="red")
        assert await receive_title(ada) == "ours"
        await user.groups.aremove(red)
        await Post.objects.acreate(title="no longer ours", project="red")
        frames = []
        while True:
            message = await ada._communicator.receive_output(5)
            if message["type"] == "websocket.close":
                break
            frames.append(message["text"])
        assert message["code"] == 4201
        assert not any("no longer ours" in frame for frame in frames)
    async with realtime(user=user) as ada:
        options = {"since": first["cursor"], "scope": first["scope"]}
        reply = await ada.subscribe("posts", **options, snapshot=True)
        assert reply["resync"] == {"reason": "scope_changed"}
        assert (await ada.receive("snapshot"))["documents"] == []


async def test_replay_without_scope_uses_current_permissions(realtime, user, settings):
    posts(settings, "TeamPosts")
    red = await Group.objects.acreate(name="red")
    await user.groups.aadd(red)
    async with realtime(user=user) as ada:
        first = await ada.subscribe("posts")
    post = await Post.objects.acreate(title="missed", project="red")
    await post.adelete()
    await user.groups.aremove(red)
    async with realtime(user=user) as ada:
        reply = await ada.subscribe("posts", since=first["cursor"])
        assert reply["resumed"] is True
        assert (await ada.receive())["type"] == "cursor"
        assert await ada.receive_nothing()


async def test_unrelated_changes_of_user_and_groups_keep_connection(realtime, user, settings):
    posts(settings, "TeamPosts")
    red, blue = await Group.objects.acreate(name="red"), await Group.objects.acreate(name="x")
    await user.groups.aadd(red)
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        edit = await Permission.objects.afirst()
        await red.permissions.aadd(edit)
        await Post.objects.acreate(title="1", project="red")
        assert await receive_title(ada) == "1"
        user.first_name = "Ada"
        await user.asave()
        user.last_login = user.date_joined
        await user.asave(update_fields=["last_login"])
        await Post.objects.acreate(title="2", project="red")
        assert await receive_title(ada) == "2"
        await sync_to_async(permissions_changed)(user)
        await Post.objects.acreate(title="3", project="red")
        assert await receive_title(ada) == "3"
        assert await ada.receive_nothing()
        await blue.adelete()
        await red.adelete()
        assert await closes_with(ada, 4201)


async def test_permission_lost_without_signal_is_noticed_by_polling(realtime, user, settings):
    posts(settings, "AdminOrOwn")
    user.is_staff = True
    await user.asave()
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        await asyncio.sleep(1)  # permissions have been polled at least once
        await type(user).objects.filter(pk=user.pk).aupdate(is_staff=False)
        assert await closes_with(ada, 4201)


@pytest.mark.parametrize("subscribes", ["before", "after"])
async def test_permission_lost_before_first_poll_is_noticed(realtime, user, settings, subscribes):
    """There is no earlier poll to compare with, only the permissions that were granted."""
    posts(settings, "AdminOrOwn")
    user.is_staff = True
    await user.asave()
    async with realtime(user=user) as ada:
        if subscribes == "before":
            await ada.subscribe("posts")
        await type(user).objects.filter(pk=user.pk).aupdate(is_staff=False)
        if subscribes == "before":
            assert await closes_with(ada, 4201)
            return
        await asyncio.sleep(1)
        await ada.subscribe("posts")
        await Post.objects.acreate(title="another owner's")
        await Post.objects.acreate(title="her own", owner=user)
        assert await receive_title(ada) == "her own"


async def test_subscribe_uses_current_permissions_of_user(realtime, user, settings):
    posts(settings, "AdminOrOwn")
    user.is_staff = True
    await user.asave()
    async with realtime(user=user) as ada:
        fresh = await type(user).objects.aget(pk=user.pk)
        fresh.is_staff = False
        await fresh.asave()
        await asyncio.sleep(0.3)
        await ada.subscribe("posts", snapshot=True)
        await Post.objects.acreate(title="another owner's")
        assert (await ada.receive("snapshot"))["documents"] == []
        await Post.objects.acreate(title="her own", owner=user)
        assert await receive_title(ada) == "her own"


async def test_subscription_is_complete_when_permissions_change_during_check(
    realtime, user, settings
):
    posts(settings, "ChangesWhileChecked")
    async with realtime(user=user) as ada:
        ChangesWhileChecked.times = 2
        await Post.objects.acreate(title="before")
        await ada.subscribe("posts", snapshot=True)
        await Post.objects.acreate(title="after")
        snapshot = await ada.receive("snapshot")
        titles = [document["data"]["title"] for document in snapshot["documents"]]
        assert titles[0] == "before"
        assert "after" in titles or await receive_title(ada) == "after"


async def test_changed_password_closes_sessions_and_tokens(realtime, user):
    async with realtime(user=user) as session, realtime(token=create_token(user)) as jwt:
        user.set_password("new")
        await user.asave()
        assert await closes_with(session, 4500)
        assert await closes_with(jwt, 4500)
    async with realtime(user=await type(user).objects.aget(pk=user.pk)):
        pass

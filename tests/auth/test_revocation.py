"""Revocation: two tokens of one user with different passwords, and users that changed."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.utils.functional import SimpleLazyObject

from django_cocobase_realtime import permissions_changed
from django_cocobase_realtime.hub.hub import Hub
from tests.app.models import Post
from tests.support.tokens import create_token

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("first", ["old", "new"])
async def test_token_from_before_password_change_is_revoked_alone(realtime, user, settings, first):
    settings.COCOBASE_REALTIME = {
        "REVOCATION_POLL": 1.0,
        "JWT": {"KEY": "a-shared-secret-of-more-than-32-bytes!"},
    }
    async with realtime(token=create_token(user)) as old:
        fresh = await type(user).objects.aget(pk=user.pk)
        fresh.set_password("new")
        await type(user).objects.filter(pk=user.pk).aupdate(password=fresh.password)
        async with realtime(token=create_token(user)) as new:
            if first == "new":  # the order in which connections are checked
                connections = Hub.current().connections
                id = next(iter(connections))
                connections[id] = connections.pop(id)
            assert await old.closed() == 4500
            assert await new.receive_nothing(1.5)


async def test_permission_lost_before_connect_is_noticed(realtime, user, settings):
    """The user was loaded before the change, and this process received no notification."""
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "permission": "tests.support.permissions.AdminOrOwn"}
        },
        "REVOCATION_POLL": 0.2,
    }
    user.is_staff = True
    await user.asave()
    await type(user).objects.filter(pk=user.pk).aupdate(is_staff=False)
    async with realtime(user=user) as ada:  # the user as loaded before the change
        await ada.subscribe("posts")
        assert await ada.closed() == 4201


async def test_lazy_user_of_middleware_is_reauthorized(realtime, user, settings):
    """The user that Channels' AuthMiddleware puts into the scope is a lazy object."""
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": "app.Post"}, "REVOCATION_POLL": 0.2}
    async with realtime(user=SimpleLazyObject(lambda: user)) as ada:
        await ada.subscribe("posts")
        await asyncio.sleep(0.3)
        await sync_to_async(permissions_changed)(user)
        await asyncio.sleep(0.3)
        await Post.objects.acreate(title="x")
        assert (await ada.receive("event"))["document"]["data"]["title"] == "x"

"""Credentials of the same name: two tokens of one user, of before and after a new password."""

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
async def test_a_new_token_keeps_no_old_one_alive_nor_dies_with_it(realtime, user, settings, first):
    settings.COCOBASE_REALTIME = {
        "REVOCATION_POLL": 1.0,
        "JWT": {"KEY": "a-shared-secret-of-more-than-32-bytes!"},
    }
    async with realtime(token=create_token(user)) as old:
        fresh = await type(user).objects.aget(pk=user.pk)
        fresh.set_password("new")
        await type(user).objects.filter(pk=user.pk).aupdate(password=fresh.password)
        async with realtime(token=create_token(user)) as new:
            if first == "new":  # the order in which they are looked at
                connections = Hub.current().connections
                id = next(iter(connections))
                connections[id] = connections.pop(id)
            assert await old.closed() == 4500
            assert await new.receive_nothing(1.5)


async def test_who_was_demoted_as_he_came_is_looked_at(realtime, user, settings):
    """Between the look at his account and his entry nobody could have told this process."""
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "permission": "tests.support.permissions.AdminOrOwn"}
        },
        "REVOCATION_POLL": 0.2,
    }
    user.is_staff = True
    await user.asave()
    await type(user).objects.filter(pk=user.pk).aupdate(is_staff=False)
    async with realtime(user=user) as ada:  # as it was loaded a moment ago
        await ada.subscribe("posts")
        assert await ada.closed() == 4201


async def test_the_rights_of_a_user_that_middleware_found_are_looked_at(realtime, user, settings):
    """Channels' AuthMiddleware puts a lazy object in the user's place."""
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": "app.Post"}, "REVOCATION_POLL": 0.2}
    async with realtime(user=SimpleLazyObject(lambda: user)) as ada:
        await ada.subscribe("posts")
        await asyncio.sleep(0.3)
        await sync_to_async(permissions_changed)(user)
        await asyncio.sleep(0.3)
        await Post.objects.acreate(title="x")
        assert (await ada.receive("event"))["document"]["data"]["title"] == "x"

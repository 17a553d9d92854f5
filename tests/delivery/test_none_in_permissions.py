"""None in the filter of a permission opens nothing: in events, snapshots and replays."""

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime.permissions import Permission, owned_by
from tests.app.models import Post

pytestmark = pytest.mark.django_db(transaction=True)


class OfOthers(Permission):
    def visible_to(self, identity):
        return {"$not": {"owner": identity.user_id}}


class OfOthersByOperator(Permission):
    def visible_to(self, identity):
        return {"owner__ne": identity.user_id}


class NotInTeam(Permission):
    def visible_to(self, identity):
        return {"owner__notin": [identity.user_id]}


class NotTheUser(Permission):
    def visible_to(self, identity):
        return {"$not": {"$or": [{"owner": identity.user}, {"owner": {"in": [identity.user]}}]}}


Inverted = ~owned_by("owner")


@pytest.mark.parametrize(
    "permission", ["OfOthers", "OfOthersByOperator", "NotInTeam", "NotTheUser", "Inverted"]
)
async def test_key_without_user_sees_nothing_by_a_negation(
    realtime, api_key, user, settings, permission
):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "permission": f"{__name__}.{permission}"}}
    }
    other = await sync_to_async(type(user).objects.create_user)("other")
    posts = [await Post.objects.acreate(title="x", owner=owner) for owner in (None, user, other)]
    async with realtime(token=api_key) as app, realtime(user=user) as ada:
        reply = await app.subscribe("posts", snapshot=True)
        assert (await app.receive("snapshot"))["documents"] == []
        await ada.subscribe("posts", snapshot=True)
        documents = (await ada.receive("snapshot"))["documents"]
        assert str(posts[2].pk) in [document["id"] for document in documents]
        for post in posts:
            post.title = "y"
            await post.asave()
            await post.adelete()
        assert await app.receive_nothing()
        assert (await ada.receive("event"))["document"]["data"]["title"] == "y"
        await app.send(
            {
                "type": "subscribe",
                "collection": "posts",
                "since": reply["cursor"],
                "scope": reply["scope"],
            }
        )
        assert (await app.receive("subscribed"))["resumed"] is True
        assert (await app.receive())["type"] == "cursor"  # the end of a replay without events
        assert await app.receive_nothing()


async def test_rows_without_owner_are_shown_if_the_permission_says_so(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "permission": f"{__name__}.OwnOrOwnerless"}}
    }
    await Post.objects.acreate(title="x")
    async with realtime(token=api_key) as app:
        await app.subscribe("posts", snapshot=True)
        assert len((await app.receive("snapshot"))["documents"]) == 1


class OwnOrOwnerless(Permission):
    def visible_to(self, identity):
        return {"$or": [{"owner": identity.user_id}, {"owner__isnull": True}]}

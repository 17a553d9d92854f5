"""Snapshots that are sorted by several fields; which orders and places in them are refused."""

import asyncio

import pytest

from django_cocobase_realtime.live_queries import page_cursor
from django_cocobase_realtime.permissions import Permission
from tests.app.models import Post
from tests.support.as_of import by


class EvenViews(Permission):
    def has_object_permission(self, identity, post):
        return post.views % 2 == 0


class NoRating(Permission):
    def fields_for(self, identity):
        return ["title", "views", "status"]


def declare(settings, **options):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": {"model": "app.Post", **options}}}


ROWS = [(views, rating) for views in (0, 2, 4) for rating in (None, "1.50", "-2.00", "10.00")]


async def create():
    for views, rating in ROWS:
        await Post.objects.acreate(title="x", views=views, rating=rating)


def pairs(frame):
    return [(d["data"]["views"], d["data"]["rating"]) for d in frame["documents"]]


@pytest.mark.parametrize("permission", [None, EvenViews])
@pytest.mark.parametrize("order", [["-views", "rating"], "-views, rating"])
async def test_snapshot_is_sorted_by_several_fields(realtime, api_key, settings, permission, order):
    declare(settings, permission=permission)
    await create()
    snapshot = {"order": order, "limit": 6}

    async def read():
        async with realtime(token=api_key) as client:
            reply = await client.subscribe("posts", snapshot=snapshot)
            return reply, await client.receive("snapshot")

    results = await asyncio.gather(*(read() for _ in range(3)))
    ratings = [None, "-2.00", "1.50", "10.00"]
    for reply, frame in results:
        assert pairs(frame) == [(4, rating) for rating in ratings] + [(2, None), (2, "-2.00")]
        assert frame["truncated"] is True
        assert "kinds" not in reply


async def test_orders_that_are_refused(realtime, api_key, settings):
    declare(settings, permission=NoRating, order_fields=["views", "rating", "created_at"])
    async with realtime(token=api_key) as client:
        for order in ("rating", "title", ["views", "-views"], "created_at", ["views", "?"]):
            with pytest.raises(AssertionError, match="bad_request"):
                await client.subscribe("posts", snapshot={"order": order})
        await client.subscribe("posts", snapshot={"order": ["-views"]})


@pytest.mark.parametrize("values", [["x", "7"], [1], [1, "7", "8"], [{}, "7"], [1, "y"]])
async def test_page_of_a_field_that_was_changed_since_is_refused(
    realtime, api_key, settings, values
):
    declare(settings)
    async with realtime(token=api_key) as client:
        for after, is_refused in ((values, True), ([1, "7"], False)):
            cursor = page_cursor.encode("posts", by("views"), after)
            window = {"order": "views", "after": cursor}
            await client.send({"type": "subscribe", "collection": "posts", "window": window})
            reply = await client.receive("error" if is_refused else "subscribed")
            assert not is_refused or "after is not the cursor" in reply["message"]

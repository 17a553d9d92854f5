"""Permissions that compare with the current time."""

import asyncio
import logging
import time
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from django_cocobase_realtime import permissions_changed
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.delivery import query
from django_cocobase_realtime.delivery.moments import differ_by_time
from tests.app.models import Post
from tests.support.frames import receive_title
from tests.support.permissions import CreatedRecently

pytestmark = pytest.mark.django_db(transaction=True)
NOW = time.time()


@pytest.fixture
def posts(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {
                "model": "app.Post",
                "permission": "tests.support.permissions.CreatedRecently",
                "filters": ["title", "meta"],
            }
        },
        "REVOCATION_POLL": 0.2,
    }
    query._warned.clear()


async def save_and_receive(client, title):
    """Create a row that is visible, although the permission was asked before."""
    post = await Post.objects.acreate(title=title)
    await Post.objects.filter(pk=post.pk).aupdate(created_at=timezone.now() - timedelta(hours=1))
    await post.arefresh_from_db()
    await post.asave()
    while await receive_title(client) != title:
        pass


async def test_connection_stays_open_while_time_passes(realtime, user, posts, caplog):
    async with realtime(user=user) as client:
        with caplog.at_level(logging.WARNING):
            for name in ("a", "b"):
                await client.subscribe("posts", subscription=name)
            for number in range(4):  # polls; the first one evaluates the permission again
                await asyncio.sleep(0.4)
                await save_and_receive(client, str(number))
            for _ in range(3):
                await sync_to_async(permissions_changed)(user)
                await asyncio.sleep(0.3)
            await save_and_receive(client, "last")
    warnings = [r.getMessage() for r in caplog.records if "current time" in r.getMessage()]
    assert len(warnings) == 1
    assert "'posts'" in warnings[0]
    assert "CreatedRecently" in warnings[0]


async def test_other_changes_of_such_a_permission_close_the_connection(
    realtime, user, posts, monkeypatch
):
    async with realtime(user=user) as client:
        await client.subscribe("posts")
        await asyncio.sleep(0.5)
        monkeypatch.setattr(CreatedRecently, "status", "published")
        await sync_to_async(permissions_changed)(user)
        assert await client.closed() == 4201


async def test_changed_range_of_such_a_permission_closes_the_connection(
    realtime, user, posts, monkeypatch
):
    async with realtime(user=user) as client:
        await client.subscribe("posts")
        monkeypatch.setattr(CreatedRecently, "precision", {"year": 2020})
        await sync_to_async(permissions_changed)(user)
        assert await client.closed() == 4201


def parse(filters):
    return registry.get("posts").parse_visible(filters).root


def at(seconds):
    return datetime.fromtimestamp(NOW + seconds, UTC)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"created_at_lt": at(0)}, {"created_at_lt": at(60)}, True),
        ({"created_at_lt": at(0)}, {"created_at_lt": at(61.5)}, True),
        ({"created_at_lt": at(0)}, {"created_at_lt": at(64)}, False),
        ({"created_at_lt": at(0)}, {"created_at_lt": at(-60)}, False),
        ({"created_at_lt": at(-1e6)}, {"created_at_lt": at(-1e6 + 60)}, True),
        ({"created_at_lt": at(0)}, {"created_at_lte": at(60)}, False),
        ({"created_at_in": [at(0), at(5)]}, {"created_at_in": [at(65), at(60)]}, True),
        ({"created_at_in": [at(0), at(5)]}, {"created_at_in": [at(65), at(70)]}, False),
        ({"created_at_in": [at(0), at(5)]}, {"created_at_in": [at(60)]}, False),
        ({"meta.at": NOW, "views": 5}, {"meta.at": NOW + 60, "views": 5}, True),
        ({"meta.at": NOW, "views": 5}, {"meta.at": NOW + 60, "views": 65}, False),
        ({"views": 5}, {"views": 65}, False),
        ({"title": "a" * 20}, {"title": "b" * 20}, False),
        ({"meta.a": True}, {"meta.a": False}, False),
        ({"$not": {"created_at_lt": at(0)}}, {"$not": {"created_at_lt": at(60)}}, True),
        ({"$not": {"created_at_lt": at(0)}}, {"created_at_lt": at(60)}, False),
        (
            {"$or": [{"created_at_lt": at(0)}, {"views": 1}]},
            {"$or": [{"created_at_lt": at(60)}, {"views": 1}]},
            True,
        ),
        ({"created_at_lt": at(0), "views": 1}, {"created_at_lt": at(60)}, False),
        ({"created_at_lt": at(0)}, True, False),
        ({"created_at_lt": at(0)}, None, False),
    ],
)
def test_filters_that_differ_by_the_passed_time(settings, old, new, expected):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": "app.Post"}}
    assert differ_by_time(parse(old), parse(new), 60.0, NOW + 60) is expected

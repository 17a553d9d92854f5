"""Clients whose snapshots may differ, or whose rows are checked, do not share one read."""

import asyncio
from contextlib import AsyncExitStack
from contextvars import ContextVar

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.permissions import Permission
from tests.app.models import Post
from tests.support.snapshot_reads import (
    configure_fixture,  # noqa: F401 - a fixture
    connect,
    reads_fixture,  # noqa: F401 - a fixture
    request,
    request_with,
    snapshots,
    titles,
)

pytestmark = pytest.mark.django_db(transaction=True)


class OwnPosts(Permission):
    def visible_to(self, identity):
        return {"project": identity.project}


class CheckedPosts(Permission):
    def has_object_permission(self, identity, post):
        return True


async def test_rows_that_are_checked_one_by_one_are_not_shared(api_key, reads, configure):
    configure(permission=f"{__name__}.CheckedPosts")
    await Post.objects.acreate(title="a")
    async with AsyncExitStack() as stack:
        sockets = await connect(stack, api_key, 2)
        await request(*sockets)
        assert all(titles(pages) == ["a"] for pages in await snapshots(*sockets))
    assert reads.count == 0


async def test_only_equal_requests_are_shared(api_key, reads, configure):
    configure(permission=f"{__name__}.OwnPosts")
    for title in "abc":
        await Post.objects.acreate(title=title)
    await Post.objects.acreate(title="hidden", project="else")
    other = (await sync_to_async(ApiKey.objects.create_key)("other", project="else"))[1]
    requests = [
        {},
        {"filters": {"title_ne": "b"}},
        {"snapshot": {"limit": 1}},
        {"snapshot": {"order": "-title"}},
        {"fields": ["title"]},
    ]
    async with AsyncExitStack() as stack:
        sockets = await connect(stack, api_key, len(requests))
        sockets += await connect(stack, other, 1)
        await asyncio.gather(*map(request_with, sockets, [*requests, {}]))
        frames = await snapshots(*sockets)
    assert ["".join(titles(pages)) for pages in frames] == [
        *("abc", "ac", "a", "cba", "abc", "hidden")
    ]
    assert [pages[-1].get("truncated", False) for pages in frames] == [n == 2 for n in range(6)]
    assert [set(pages[0]["documents"][0]["data"]) for pages in frames[3:5]] == [
        {"title", "views"},
        {"title"},
    ]
    assert reads.count == 6


tenant = ContextVar("tenant")


async def test_requests_with_other_context_variables_are_not_shared(api_key, reads, configure):
    """A serializer, a manager or a router may depend on them."""
    configure(serializer=f"{__name__}.serialize_for_tenant", fields=None)
    await Post.objects.acreate(title="a")
    async with AsyncExitStack() as stack:
        sockets = []
        for name in ("a", "b", "a"):
            tenant.set(name)
            sockets += await connect(stack, api_key, 1)
        reads.gate.clear()
        await request(sockets[1])
        await request(sockets[0], sockets[2])
        reads.gate.set()
        frames = await snapshots(*sockets)
    assert [pages[0]["documents"][0]["data"]["tenant"] for pages in frames] == ["a", "b", "a"]
    assert reads.count == 2


def serialize_for_tenant(post):
    return {"tenant": tenant.get()}

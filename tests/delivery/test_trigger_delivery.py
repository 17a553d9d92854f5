"""Connected clients receive the changes that triggers log."""

import sqlite3
import time
from contextlib import closing

import pytest
from asgiref.sync import sync_to_async
from django.db import connection, transaction

from django_cocobase_realtime.permissions import Permission
from tests.app.models import Post
from tests.support.triggers import execute, installed_triggers, is_postgres

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def watch(settings):
    """A function that declares a collection of posts by triggers."""
    contexts = []

    def declare(poll=3600, **options):
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": {"posts": {"model": "app.Post", "capture": "triggers", **options}},
            "LOG": {"POLL": poll},
        }
        context = installed_triggers()
        context.__enter__()
        contexts.append(context)

    yield declare
    for context in contexts:
        context.__exit__(None, None, None)


@sync_to_async
def write(sql, params=None):
    execute(sql, params)


@sync_to_async
def write_elsewhere(sql):
    """Execute a statement as another program does."""
    if is_postgres():
        import psycopg

        keys = ("dbname", "user", "host", "port")
        parameters = {k: v for k, v in connection.get_connection_params().items() if k in keys}
        with psycopg.connect(**parameters) as other:
            other.execute(sql)
    else:
        with closing(sqlite3.connect(connection.settings_dict["NAME"], timeout=10)) as other:
            other.execute(sql)
            other.commit()


async def title(client, **options):
    return (await client.receive("event", **options))["document"]["data"]["title"]


async def test_writes_of_the_orm_are_announced(watch, realtime, api_key):
    """The log is not polled during the test."""
    await sync_to_async(watch)()
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        post = await Post.objects.acreate(title="a")
        assert await title(client) == "a"
        post.title = "b"
        await post.asave()
        assert await title(client) == "b"
        await Post.objects.aupdate(title="c")
        assert await title(client) == "c"
        await Post.objects.abulk_create([Post(title="d")])
        assert await title(client) == "d"
        await Post.objects.filter(title="c").adelete()
        assert (await client.receive("event"))["event"] == "deleted"
        await sync_to_async(lambda: Post.objects.get().tags.create(name="t"))()
        assert (await client.receive("event"))["event"] == "updated"
        await sync_to_async(Post.tags.through.objects.all()._raw_delete)("default")
        assert (await client.receive("event"))["event"] == "updated"
        await sync_to_async(Post.objects.all()._raw_delete)("default")
        assert (await client.receive("event"))["event"] == "deleted"


async def test_writes_in_a_transaction_are_announced_when_it_is_committed(watch, realtime, api_key):
    await sync_to_async(watch)()

    @sync_to_async
    def in_transaction(fails):
        with transaction.atomic():
            Post.objects.create(title="a")
            Post.objects.update(title="b")
            if fails:
                transaction.set_rollback(True)

    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await in_transaction(True)
        assert await client.receive_nothing()
        await in_transaction(False)
        assert [await title(client) for _ in "ab"] == ["a", "b"]
        assert await client.receive_nothing()


async def test_other_program_is_seen_at_the_next_poll(watch, realtime, api_key):
    await sync_to_async(watch)(poll=0.5)
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await Post.objects.acreate(title="a")
        await client.receive("event")
        started = time.monotonic()
        await write_elsewhere("UPDATE app_post SET title = 'b'")
        event = await client.receive("event")
        assert time.monotonic() - started < 2
        assert (event["event"], event["changed"]) == ("updated", ["title"])
        await write_elsewhere("DELETE FROM app_post")
        assert (await client.receive("event"))["event"] == "deleted"


async def test_other_program_is_not_seen_before_the_next_poll(watch, realtime, api_key):
    """It is documented; an announcement of the ORM brings its changes, too."""
    await sync_to_async(watch)()
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await Post.objects.acreate(title="a")
        await client.receive("event")
        await write_elsewhere("UPDATE app_post SET title = 'b'")
        assert await client.receive_nothing(1)
        await Post.objects.acreate(title="c")
        assert [await title(client) for _ in "bc"] == ["b", "c"]


async def test_client_resumes_with_changes_of_other_programs(watch, realtime, api_key):
    await sync_to_async(watch)()
    async with realtime(token=api_key) as client:
        cursor = (await client.subscribe("posts"))["cursor"]
    await Post.objects.acreate(title="a", views=1)
    await write_elsewhere("UPDATE app_post SET title = 'b'")
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", since=cursor, filters={"views_gte": 1})
        assert [await title(client) for _ in "ab"] == ["a", "b"]


async def test_rows_that_begin_or_cease_to_match_a_filter(watch, realtime, api_key):
    await sync_to_async(watch)(poll=0.2)
    post = await Post.objects.acreate(title="a", views=1)
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", filters={"views_gte": 5}, transitions=True)
        await write("UPDATE app_post SET views = 9")
        event = await client.receive("event")
        assert (event["event"], event["document"]["id"]) == ("entered", str(post.pk))
        await write("UPDATE app_post SET views = 2")
        assert (await client.receive("event"))["event"] == "left"


# options of collections


def headline(post):
    return {"headline": post.title.upper(), "at": post.created_at}


async def test_serializer_is_given_the_row_that_a_trigger_logged(watch, realtime, api_key):
    await sync_to_async(watch)(poll=0.2, serializer=headline)
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await Post.objects.acreate(title="a")
        data = (await client.receive("event"))["document"]["data"]
        post = await Post.objects.aget()
        assert data["headline"] == "A"
        assert data["at"][:19] == post.created_at.isoformat()[:19]
        await write("UPDATE app_post SET title = 'b'")
        assert (await client.receive("event"))["document"]["data"]["headline"] == "B"


async def test_rows_of_other_projects_are_not_sent(watch, realtime, api_key):
    await sync_to_async(watch)(project_field="project", fields=["title"])
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", transitions=True)
        await Post.objects.acreate(title="other", project="secret")
        await Post.objects.acreate(title="own", project="default")
        assert await title(client) == "own"
        await write("UPDATE app_post SET project = 'moved' WHERE title = 'own'")
        await Post.objects.acreate(title="next")
        assert (await client.receive("event"))["event"] == "left"
        assert await title(client) == "next"


async def test_rows_that_count_as_deleted_are_deleted_for_clients(watch, realtime, api_key):
    await sync_to_async(watch)(soft_delete={"status": "gone"}, fields=["title"], poll=0.2)
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await Post.objects.acreate(title="a")
        await client.receive("event")
        await write("UPDATE app_post SET status = 'gone'")
        assert (await client.receive("event"))["event"] == "deleted"
        await write("UPDATE app_post SET status = 'back'")
        assert (await client.receive("event"))["event"] == "created"


async def test_collection_without_old_values(watch, realtime, api_key):
    await sync_to_async(watch)(track=False, poll=0.2)
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", filters={"views": 1})
        await Post.objects.acreate(title="a", views=1)
        await client.receive("event")
        await write("UPDATE app_post SET title = 'b'")
        event = await client.receive("event")
        assert event["document"]["data"]["title"] == "b"
        assert "changed" not in event


class OddViews(Permission):
    def visible_to(self, identity):
        return {"views_gte": 0}

    def has_object_permission(self, identity, post):
        return post.views % 2 == 1


async def test_permissions_look_at_rows_that_a_trigger_logged(watch, realtime, api_key):
    await sync_to_async(watch)(
        permission=OddViews, fields=["title"], permission_fields=["views"], poll=0.2
    )
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        for views in (-1, 2, 3):
            await Post.objects.acreate(title=str(views), views=views)
        assert await title(client) == "3"
        assert await client.receive_nothing(0.5)

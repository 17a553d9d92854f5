"""A serializer or a check per row raises: the document says so, or the row is hidden."""

import pytest
from django.db import connection

from django_cocobase_realtime.testing import capture_events
from tests.app.models import Post
from tests.support import failing_code
from tests.support.failing_code import Failure

pytestmark = pytest.mark.django_db(transaction=True)
CODE = failing_code.__name__


@pytest.fixture(autouse=True)
def _reset():
    Failure.reset()
    yield
    Failure.reset()


@pytest.fixture(params=["durable", "not durable"])
def configure(request, settings):
    options = {"serializer": f"{CODE}.serialize", "durable": request.param == "durable"}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": {"model": "app.Post", **options}}}
    return request.param


def failures(caplog):
    return [r for r in caplog.records if r.name.endswith("project_code")]


async def test_document_of_failing_serializer_says_so(realtime, api_key, configure, caplog):
    async with realtime(token=api_key) as app:
        await app.subscribe("posts")
        Failure.of("serialize")
        posts = [await Post.objects.acreate(title=f"{n}") for n in range(5)]
        for post in posts:
            event = await app.receive("event")
            assert event["document"] == {"id": str(post.pk), "error": True}
        await app.send({"type": "subscribe", "collection": "posts", "snapshot": True})
        reply = await app.receive("subscribed")
        page = await app.receive("snapshot")
        documents = sorted(page["documents"], key=lambda document: int(document["id"]))
        assert documents == [{"id": str(post.pk), "error": True} for post in posts]
        (record,) = failures(caplog)  # not once per document
        assert "serialize of collection 'posts'" in record.getMessage()
        assert record.exc_info
        Failure.reset()
        posts[0].title = "works again"
        await posts[0].asave()
        event = await app.receive("event")
        assert event["document"]["data"] == {"title": "works again"}
        cursor = reply.get("cursor")
    if cursor is None:
        return
    async with realtime(token=api_key) as app:
        # what was logged with a failure stays so
        await app.subscribe("posts", since=cursor)
        assert (await app.receive("event"))["document"]["data"] == {"title": "works again"}


async def test_replayed_document_of_failing_serializer_says_so(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "serializer": f"{CODE}.serialize"}}
    }
    async with realtime(token=api_key) as app:
        cursor = (await app.subscribe("posts"))["cursor"]
        Failure.of("serialize")
        post = await Post.objects.acreate(title="x")
        await app.receive("event")
    Failure.reset()
    async with realtime(token=api_key) as app:
        await app.subscribe("posts", since=cursor)
        event = await app.receive("event")
        assert event["replayed"]
        assert event["document"] == {"id": str(post.pk), "error": True}


async def test_failing_query_of_a_serializer_does_not_stop_the_log(realtime, api_key, settings):
    """On PostgreSQL a failed query aborts the transaction, here that which numbers events."""
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "serializer": f"{CODE}.serialize"}}
    }
    async with realtime(token=api_key) as app:
        await app.subscribe("posts")
        Failure.of("serialize", "query")
        post = await Post.objects.acreate(title="x")
        event = await app.receive("event")
        assert event["document"] == {"id": str(post.pk), "error": True}
        Failure.reset()
        await Post.objects.acreate(title="y")
        assert (await app.receive("event"))["document"]["data"] == {"title": "y"}


def test_successful_query_of_a_serializer_is_kept(transactional_db):
    from django.db import transaction

    from django_cocobase_realtime.utils.transactions import savepoint_at_first_query

    with transaction.atomic():
        with savepoint_at_first_query("default"):
            Post.objects.create(title="kept")
        with pytest.raises(RuntimeError), savepoint_at_first_query("default"):
            Post.objects.create(title="undone")
            raise RuntimeError
        with pytest.raises(RuntimeError), savepoint_at_first_query("default"):
            raise RuntimeError
        assert not connection.needs_rollback
    assert [post.title for post in Post.objects.all()] == ["kept"]


async def test_sdk_document_of_failing_serializer_says_so(realtime, api_key, configure):
    async with realtime(path="/realtime/collections/posts", authenticate=False) as sdk:
        await sdk.request({"api_key": api_key})
        Failure.of("serialize")
        post = await Post.objects.acreate(title="x")
        frame = await sdk.receive()
        for document in (frame["data"], frame["document"]):
            assert (document["id"], document["data"]) == (str(post.pk), {})
            assert document["error"] is True


async def test_failing_save_is_not_caused_by_a_serializer(configure):
    Failure.of("serialize")
    with capture_events() as events:
        await Post.objects.acreate(title="x")
    assert await Post.objects.acount() == 1
    assert len(events) == 1


@pytest.mark.parametrize("permission", ["FailingCheck", "HiddenByFailingCheck"])
@pytest.mark.parametrize("error", [None, "query"])
async def test_failing_check_hides_the_row_alone(
    realtime, api_key, settings, caplog, permission, error
):
    """Also if the permission is negated."""
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "permission": f"{CODE}.{permission}"},
            "messages": "app.Message",
        }
    }
    async with realtime(token=api_key) as app:
        await app.subscribe("posts")
        Failure.of("has_object_permission", error)
        for n in range(5):
            await Post.objects.acreate(title=f"{n}")
        assert await app.receive_nothing(0.5)
        assert len(failures(caplog)) == 1
        await app.send({"type": "subscribe", "collection": "posts", "snapshot": True})
        await app.receive("subscribed")
        assert (await app.receive("snapshot"))["documents"] == []
        Failure.reset()
        await Post.objects.acreate(title="x")
        if permission == "FailingCheck":
            assert (await app.receive("event"))["document"]["data"]["title"] == "x"

"""Which rows and fields a client receives: combined permissions, and checks of each row."""

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime.delivery.row_permissions import stats
from tests.app.models import Post
from tests.support.frames import receive_title

pytestmark = pytest.mark.django_db(transaction=True)


def posts(settings, permission):
    path = f"tests.support.permissions.{permission}"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "permission": path}},
        "REVOCATION_POLL": 0.2,
    }


@pytest.fixture
def eve(transactional_db, django_user_model):
    return django_user_model.objects.create_user("eve", is_staff=True)


async def test_permissions_combined_with_or_and_not(realtime, user, eve, api_key, settings):
    async def titles(credentials, permission):
        posts(settings, permission)
        async with realtime(**credentials) as client:
            ask = {"type": "subscribe", "collection": "posts", "snapshot": {"order": "title"}}
            reply = await client.request(ask)
            if reply["type"] == "error":
                return reply["code"]
            documents = (await client.receive("snapshot"))["documents"]
            return "".join(d["data"]["title"] for d in documents)

    await Post.objects.acreate(title="a", owner=user)
    await Post.objects.acreate(title="b", owner=eve, status="published")
    await Post.objects.acreate(title="c", status="published", views=50)
    ada, admin, key = {"user": user}, {"user": eve}, {"token": api_key}
    expected = {
        "OwnOrPublished": ("abc", "bc", "bc"),
        "AdminOrOwn": ("a", "abc", "unknown_collection"),
        "NotMine": ("bc", "ac", ""),  # nothing is known about rows of a key without a user
        "PublishedFew": ("b", "b", "b"),
        "NotFew": ("c", "c", "c"),
        "Models": ("unknown_collection",) * 3,
    }
    for permission, results in expected.items():
        got = tuple([await titles(credentials, permission) for credentials in (ada, admin, key)])
        assert got == results, permission


async def test_or_of_permissions_shows_fields_of_the_one_that_matches(
    realtime, user, api_key, settings
):
    posts(settings, "OwnAllOrTitles")
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        await Post.objects.acreate(title="x", status="published", body="not for ada")
        frame = await ada.receive("event")
        assert frame["document"]["data"] == {"title": "x"}


async def test_row_check_decides_events_transitions_and_replay(realtime, api_key, settings):
    posts(settings, "PublishedFew")
    before = stats.evaluated
    async with realtime(token=api_key) as client:
        reply = await client.subscribe("posts", transitions=True)
        post = await Post.objects.acreate(title="a", status="published")
        await Post.objects.acreate(title="hidden", status="published", views=50)
        await Post.objects.acreate(title="not published, not checked")
        assert await receive_title(client) == "a"
        post.views = 20
        await post.asave()
        frame = await client.receive("event")
        assert (frame["event"], frame["document"]) == ("left", {"id": str(post.pk)})
        post.views = 1
        await post.asave()
        assert (await client.receive("event"))["event"] == "entered"
        await post.adelete()
        assert (await client.receive("event"))["event"] == "deleted"
        assert await client.receive_nothing()
    assert stats.evaluated - before <= 8
    assert stats.waiting == 0
    async with realtime(token=api_key) as client:
        ask = {"transitions": True, "since": reply["cursor"], "scope": reply["scope"]}
        assert (await client.subscribe("posts", **ask))["resumed"] is True
        events = [(await client.receive("event"))["event"] for _ in range(4)]
        assert events == ["created", "left", "entered", "deleted"]


async def test_row_check_that_raises_hides_the_row(realtime, api_key, settings):
    posts(settings, "RowQuery")
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await Post.objects.acreate(title="broken")
        await Post.objects.acreate(title="whole")
        assert await receive_title(client) == "whole"


async def test_events_waiting_for_row_checks_keep_their_order(realtime, api_key, settings):
    posts(settings, "RowQuery")
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")

        def save_many():
            for number in range(30):
                Post.objects.create(title=str(number))

        await sync_to_async(save_many)()
        assert [await receive_title(client) for _ in range(30)] == [str(n) for n in range(30)]

"""Who sees what when permissions combine, look at rows, or change; and each way to leak."""

import asyncio
import time

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Group, Permission

from django_cocobase_realtime import permissions_changed
from django_cocobase_realtime.delivery.row_permissions import stats
from tests.app.models import Post

pytestmark = pytest.mark.django_db(transaction=True)


def posts(settings, permission, **options):
    path = f"tests.support.permissions.{permission}"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "permission": path, **options}},
        "REVOCATION_POLL": 0.2,
    }


@pytest.fixture
def eve(transactional_db, django_user_model):
    return django_user_model.objects.create_user("eve", is_staff=True)


async def seen(client):
    """The next event's title. Whoever was looked at anew may be told a cursor first."""
    while (frame := await client.receive())["type"] == "cursor":
        pass
    assert frame["type"] == "event", frame
    return frame["document"]["data"]["title"]


async def test_either_both_and_not(realtime, user, eve, api_key, settings):
    async def titles(who, permission):
        posts(settings, permission)
        async with realtime(**who) as client:
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
        "NotMine": ("bc", "ac", "abc"),
        "PublishedFew": ("b", "b", "b"),
        "NotFew": ("c", "c", "c"),
        "Models": ("unknown_collection",) * 3,
    }
    for permission, results in expected.items():
        got = tuple([await titles(who, permission) for who in (ada, admin, key)])
        assert got == results, permission


async def test_of_fields_either_shows_what_both_do(realtime, user, api_key, settings):
    posts(settings, "OwnAllOrTitles")
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        await Post.objects.acreate(title="x", status="published", body="not for ada")
        frame = await ada.receive("event")
        assert frame["document"]["data"] == {"title": "x"}


async def test_a_check_of_each_row(realtime, api_key, settings):
    posts(settings, "PublishedFew")
    before = stats.evaluated
    async with realtime(token=api_key) as client:
        reply = await client.subscribe("posts", transitions=True)
        post = await Post.objects.acreate(title="a", status="published")
        await Post.objects.acreate(title="hidden", status="published", views=50)
        await Post.objects.acreate(title="not even asked")
        assert await seen(client) == "a"
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


async def test_a_check_that_fails_hides_the_row(realtime, api_key, settings):
    posts(settings, "RowQuery")
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        await Post.objects.acreate(title="broken")
        await Post.objects.acreate(title="whole")
        assert await seen(client) == "whole"


async def test_many_waiting_checks_keep_their_order(realtime, api_key, settings):
    posts(settings, "RowQuery")
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")

        def save_many():
            for number in range(30):
                Post.objects.create(title=str(number))

        await sync_to_async(save_many)()
        assert [await seen(client) for _ in range(30)] == [str(n) for n in range(30)]


# rights that change


async def closed_with(client, code):
    return await client.closed() == code


async def test_a_group_that_is_left(realtime, user, settings):
    posts(settings, "TeamPosts")
    red = await Group.objects.acreate(name="red")
    await user.groups.aadd(red)
    async with realtime(user=user) as ada:
        first = await ada.subscribe("posts")
        await Post.objects.acreate(title="ours", project="red")
        assert await seen(ada) == "ours"
        await user.groups.aremove(red)
        await Post.objects.acreate(title="not ours any more", project="red")
        frames = []
        while True:
            message = await ada._communicator.receive_output(5)
            if message["type"] == "websocket.close":
                break
            frames.append(message["text"])
        assert message["code"] == 4201
        assert not any("not ours" in frame for frame in frames)
    async with realtime(user=user) as ada:
        options = {"since": first["cursor"], "scope": first["scope"]}
        reply = await ada.subscribe("posts", **options, snapshot=True)
        assert reply["resync"] == {"reason": "scope_changed"}
        assert (await ada.receive("snapshot"))["documents"] == []


async def test_replay_goes_by_todays_rights_even_without_a_scope(realtime, user, settings):
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


async def test_an_unrelated_change_costs_nothing(realtime, user, settings):
    posts(settings, "TeamPosts")
    red, blue = await Group.objects.acreate(name="red"), await Group.objects.acreate(name="x")
    await user.groups.aadd(red)
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        edit = await Permission.objects.afirst()
        await red.permissions.aadd(edit)
        await Post.objects.acreate(title="1", project="red")
        assert await seen(ada) == "1"
        user.first_name = "Ada"
        await user.asave()
        user.last_login = user.date_joined
        await user.asave(update_fields=["last_login"])
        await Post.objects.acreate(title="2", project="red")
        assert await seen(ada) == "2"
        await sync_to_async(permissions_changed)(user)
        await Post.objects.acreate(title="3", project="red")
        assert await seen(ada) == "3"
        assert await ada.receive_nothing()
        await blue.adelete()
        await red.adelete()
        assert await closed_with(ada, 4201)


async def test_rights_without_a_signal_are_noticed(realtime, user, settings):
    posts(settings, "AdminOrOwn")
    user.is_staff = True
    await user.asave()
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        await asyncio.sleep(1)  # a look at how things are
        await type(user).objects.filter(pk=user.pk).aupdate(is_staff=False)
        assert await closed_with(ada, 4201)


@pytest.mark.parametrize("subscribes", ["before", "after"])
async def test_rights_that_change_before_the_first_look(realtime, user, settings, subscribes):
    """There is nothing to compare them with but what was granted."""
    posts(settings, "AdminOrOwn")
    user.is_staff = True
    await user.asave()
    async with realtime(user=user) as ada:
        if subscribes == "before":
            await ada.subscribe("posts")
        await type(user).objects.filter(pk=user.pk).aupdate(is_staff=False)
        if subscribes == "before":
            assert await closed_with(ada, 4201)
            return
        await asyncio.sleep(1)
        await ada.subscribe("posts")
        await Post.objects.acreate(title="somebody's")
        await Post.objects.acreate(title="her own", owner=user)
        assert await seen(ada) == "her own"


async def test_rights_are_fresh_when_a_subscription_starts(realtime, user, settings):
    posts(settings, "AdminOrOwn")
    user.is_staff = True
    await user.asave()
    async with realtime(user=user) as ada:
        fresh = await type(user).objects.aget(pk=user.pk)
        fresh.is_staff = False
        await fresh.asave()
        await asyncio.sleep(0.3)
        await ada.subscribe("posts", snapshot=True)
        await Post.objects.acreate(title="somebody's")
        assert (await ada.receive("snapshot"))["documents"] == []
        await Post.objects.acreate(title="her own", owner=user)
        assert await seen(ada) == "her own"


async def test_rights_that_change_while_they_are_asked_for(realtime, user, settings):
    from tests.support.permissions import ChangesWhileChecked

    posts(settings, "ChangesWhileChecked")
    async with realtime(user=user) as ada:
        ChangesWhileChecked.times = 2
        await Post.objects.acreate(title="before")
        await ada.subscribe("posts", snapshot=True)
        await Post.objects.acreate(title="after")
        snapshot = await ada.receive("snapshot")
        titles = [document["data"]["title"] for document in snapshot["documents"]]
        assert titles[0] == "before"
        assert "after" in titles or await seen(ada) == "after"


async def test_a_changed_password_ends_sessions_and_tokens(realtime, user):
    from tests.e2e.test_in_process import token

    async with realtime(user=user) as session, realtime(token=token(user)) as jwt:
        user.set_password("new")
        await user.asave()
        assert await closed_with(session, 4500)
        assert await closed_with(jwt, 4500)
    async with realtime(user=await type(user).objects.aget(pk=user.pk)):
        pass


# leaks


async def test_missing_and_forbidden_take_the_same_time(realtime, user, settings):
    posts(settings, "Models")
    async with realtime(user=user) as ada:

        async def took(collection):
            started = time.monotonic()
            reply = await ada.request({"type": "subscribe", "collection": collection})
            assert reply["code"] == "unknown_collection"
            return time.monotonic() - started

        await took("posts")
        # the shortest: what else the machine does only makes it longer
        forbidden = min([await took("posts") for _ in range(9)])
        missing = min([await took("nonsense") for _ in range(9)])
        assert abs(forbidden - missing) < 0.02, (forbidden, missing)


async def test_unreadable_fields_are_no_oracle(realtime, api_key, settings):
    options = {"fields": ["title", "meta"], "filters": ["title", "meta.public"]}
    posts(settings, "TitlesOnly", **options)
    async with realtime(token=api_key) as client:
        await Post.objects.acreate(title="t", body="secret", meta={"public": 1})
        for ask in (
            {"filters": {"body_startswith": "s"}},
            {"filters": {"meta.public": 1}},  # a path of what this identity may not read
            {"filters": {"$not": {"body": "x"}}},
            {"filters": {"[or]title": "x", "[or]body": "secret"}},
            {"filters": {"title__or__body_contains": "secret"}},
        ):
            reply = await client.request({"type": "subscribe", "collection": "posts", **ask})
            assert reply["code"] == "invalid_filter", ask
            assert "['title']" in reply["message"]
        for ask in (
            {"snapshot": {"order": "body"}},
            {"snapshot": {"order": "-meta"}},
            {"changed": ["body"]},
            {"fields": ["body"]},
        ):
            reply = await client.request({"type": "subscribe", "collection": "posts", **ask})
            assert reply["code"] == "bad_request", ask
        await client.subscribe("posts")
        post = await Post.objects.aget()
        post.body = "other"
        await post.asave()
        frame = await client.receive("event")
        assert (frame["document"]["data"], frame["changed"]) == ({"title": "t"}, [])

"""Attempts to find out what `has_object_permission` hides: by time, by flags and by cursors."""

import time

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from tests.app.models import Post
from tests.support.permissions import SlowOwn

pytestmark = pytest.mark.django_db(transaction=True)

HIDDEN = 15
# the first attempts, and how many more are made while the shortest times differ
ROUNDS, MAX_ROUNDS = 5, 60
# half of the time that the checks of the hidden rows take
MARGIN = HIDDEN * SlowOwn.SECONDS / 2
GUESSES = ("secret", "wrong")


@pytest.fixture(autouse=True)
def posts(settings):
    SlowOwn.checked.clear()

    def declare(**options):
        declared = {"model": "app.Post", "permission": "tests.support.permissions.SlowOwn"}
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": {"posts": declared | options},
            "LIMITS": {"subscribe_rate": (10000, 10000), "snapshot_documents": 50},
        }

    declare()
    return declare


@pytest.fixture
def eve(transactional_db, django_user_model):
    return django_user_model.objects.create_user("eve")


async def make_rows(owner, other, hidden=HIDDEN):
    await Post.objects.abulk_create(
        Post(title=f"secret {number}", owner=other) for number in range(hidden)
    )
    return await Post.objects.acreate(title="mine", owner=owner)


async def compare(variants, attempt):
    """Check that an attempt takes as long for each variant, and makes the same checks.

    The shortest times are compared, because other load of the machine only adds time.
    """
    shortest = dict.fromkeys(variants, 1e9)
    checks = set()
    for number in range(MAX_ROUNDS):
        for variant in variants:
            SlowOwn.checked.clear()
            started_at = time.perf_counter()
            await attempt(variant)
            shortest[variant] = min(shortest[variant], time.perf_counter() - started_at)
            checks.add(tuple(sorted(SlowOwn.checked)))
        if number >= ROUNDS and max(shortest.values()) - min(shortest.values()) < MARGIN:
            break
    else:
        raise AssertionError(f"The times differ: {shortest}")
    assert len(checks) == 1, checks


async def request_snapshot(client, **request):
    reply = await client.request({"type": "subscribe", "collection": "posts", **request})
    assert reply["type"] == "subscribed", reply
    return await client.receive("snapshot")


async def test_snapshot_takes_as_long_whatever_the_filter(realtime, user, eve):
    await make_rows(user, eve)
    async with realtime(user=user) as client:

        async def attempt(guess):
            filters = {"title_startswith": guess}
            frame = await request_snapshot(client, filters=filters, snapshot=True)
            assert frame["documents"] == []
            assert "truncated" not in frame

        await compare(GUESSES, attempt)


async def test_snapshot_takes_as_long_whatever_the_order_and_limit(realtime, user, eve):
    await make_rows(user, eve)
    async with realtime(user=user) as client:

        async def attempt(snapshot):
            order, limit = snapshot
            frame = await request_snapshot(client, snapshot={"order": order, "limit": limit})
            assert [d["data"]["title"] for d in frame["documents"]] == ["mine"]

        await compare([("title", 1), ("-title", 1), ("title", 40)], attempt)


async def test_snapshot_checks_the_same_rows_whatever_its_order(
    realtime, user, eve, settings, monkeypatch
):
    """A client could see how many hidden rows come before its own, if they were read in order."""
    monkeypatch.setattr(SlowOwn, "SECONDS", 0)
    settings.COCOBASE_REALTIME["LIMITS"]["snapshot_documents"] = 1000
    await Post.objects.abulk_create(Post(title=f"k{n}", owner=eve) for n in range(600))
    for title in ("a", "b"):
        await Post.objects.acreate(title=title, owner=user)
    async with realtime(user=user) as client:
        checks = set()
        for order in ("title", "-title", "id", "-id"):
            SlowOwn.checked.clear()
            frame = await request_snapshot(client, snapshot={"order": order, "limit": 1})
            assert len(frame["documents"]) == 1
            # the document that is sent is checked once more when it is read
            checks.add(tuple(sorted(set(SlowOwn.checked))))
    assert len(checks) == 1


async def test_snapshot_of_hidden_and_of_missing_document_take_as_long(realtime, user, eve):
    hidden = await Post.objects.acreate(title="secret", owner=eve)
    async with realtime(user=user) as client:
        shortest = {}
        for document in (str(hidden.pk), "999999"):
            attempts = []
            for _ in range(ROUNDS):
                started_at = time.perf_counter()
                await request_snapshot(client, document=document, snapshot=True)
                attempts.append(time.perf_counter() - started_at)
            shortest[document] = min(attempts)
        # both are delayed to a multiple of 50 ms
        assert min(shortest.values()) > 0.045
        assert abs(shortest[str(hidden.pk)] - shortest["999999"]) < 0.02, shortest


@pytest.mark.parametrize("shown", [3, 60])
async def test_truncated_does_not_depend_on_the_hidden_rows_that_match(realtime, user, eve, shown):
    """60 hidden rows are more than a snapshot may check."""
    await make_rows(user, eve, hidden=60)
    await Post.objects.abulk_create(Post(title=f"{n}", owner=user) for n in range(shown))
    async with realtime(user=user) as client:
        for filters in ({"title_startswith": "secret"}, {"title_startswith": "wrong"}, {}):
            frame = await request_snapshot(client, filters=filters, snapshot=True)
            assert frame["truncated"] is True
            assert frame["more"] is False


async def test_one_document_is_found_behind_more_rows_than_are_checked(realtime, user, eve):
    mine = await make_rows(user, eve, hidden=60)
    async with realtime(user=user) as client:
        frame = await request_snapshot(client, document=str(mine.pk), snapshot=True)
        assert [d["data"]["title"] for d in frame["documents"]] == ["mine"]
        assert "truncated" not in frame


async def test_snapshot_sorts_and_limits_checked_rows_like_others(realtime, user, posts):
    titles = ["b", "B", "a", "é", "", "ab", "10", "9"]
    for views, title in enumerate(titles):
        await Post.objects.acreate(title=title, views=views % 3, owner=user)
    requests = [
        {"order": order, "limit": limit}
        for order in ("title", "-title", "views", "-views", "id", "owner", "-created_at")
        for limit in (3, 50)
    ]

    async def snapshots():
        async with realtime(user=user) as client:
            return [
                [(d["id"], d["data"]) for d in frame["documents"]] + [frame.get("truncated")]
                for frame in [await request_snapshot(client, snapshot=ask) for ask in requests]
            ]

    checked = await snapshots()
    posts(permission="tests.support.permissions.OwnPosts")
    assert checked == await snapshots()


@pytest.mark.parametrize("durable", [True, False])
async def test_event_takes_as_long_whatever_the_filter(realtime, user, eve, posts, durable):
    """Another change follows in the same transaction, by which the client can measure the time."""
    posts(durable=durable)
    mine = await make_rows(user, eve)
    secret = [post async for post in Post.objects.filter(owner=eve)]

    def change():
        with transaction.atomic():
            for post in (*secret, mine):
                post.save()

    async with realtime(user=user) as client:
        await client.subscribe("posts", subscription="own", filters={"title": "mine"})

        async def attempt(guess):
            reply = await client.request(
                {
                    "type": "subscribe",
                    "collection": "posts",
                    "subscription": "guess",
                    "filters": {"title_startswith": guess},
                }
            )
            assert reply["type"] == "subscribed"
            await sync_to_async(change)()
            frame = await client.receive("event")
            assert frame["subscriptions"] == ["own"]

        await compare(GUESSES, attempt)


async def test_replay_takes_as_long_whatever_the_filter(realtime, user, eve):
    async with realtime(user=user) as client:
        reply = await client.subscribe("posts", subscription="first")
        await make_rows(user, eve)
        assert (await client.receive("event"))["document"]["data"]["title"] == "mine"

        await client.request({"type": "unsubscribe", "subscription": "first"})

        async def attempt(guess):
            answer = await client.request(
                {
                    "type": "subscribe",
                    "collection": "posts",
                    "subscription": "guess",
                    "filters": {"title_startswith": guess},
                    "since": reply["cursor"],
                }
            )
            assert answer["resumed"] is True
            # the only frame is the cursor after the events that the client must not see
            frame = await client.receive()
            assert frame["type"] == "cursor"

        await compare(GUESSES, attempt)


async def test_check_is_made_once_for_all_subscriptions_of_a_connection(realtime, user, eve):
    post = await Post.objects.acreate(title="secret", owner=eve)
    async with realtime(user=user) as client:
        for number in range(10):
            filters = {"title_startswith": "secret"[:number]}
            await client.subscribe("posts", subscription=f"s{number}", filters=filters)
        SlowOwn.checked.clear()
        await post.asave()
        mine = await Post.objects.acreate(title="mine", owner=user)
        await client.receive("event")
        # an update by which nothing enters or leaves needs no check of the old row
        assert SlowOwn.checked == ["secret", mine.title]

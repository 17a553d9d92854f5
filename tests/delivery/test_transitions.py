"""Which events a subscription receives: transitions, one document, changed fields, soft deletes."""

import pytest
from asgiref.sync import sync_to_async

from tests.app.models import Item, Post

pytestmark = pytest.mark.django_db(transaction=True)


def posts(settings, **options):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", **options}, "items": "app.Item"}
    }


def summary(frame):
    document = frame["document"]
    return frame["event"], document["id"], (document.get("data") or {}).get("title")


async def test_transitions_are_sent_when_filter_starts_and_stops_matching(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", filters={"status": "published"}, transitions=True)
        post = await Post.objects.acreate(title="a")
        post.status = "published"
        await post.asave()
        frame = await client.receive("event")
        assert summary(frame) == ("entered", str(post.pk), "a")
        post.title = "b"
        await post.asave()
        assert summary(await client.receive("event")) == ("updated", str(post.pk), "b")
        post.status = "draft"
        post.title = "secret plans"
        await post.asave()
        frame = await client.receive("event")
        assert frame["event"] == "left"
        assert frame["document"] == {"id": str(post.pk)}
        assert "changed" not in frame
        assert "secret" not in str(frame)
        await post.adelete()
        assert await client.receive_nothing()
        # creations and deletions of matching rows are sent as such
        other = await Post.objects.acreate(title="c", status="published")
        assert summary(await client.receive("event"))[0] == "created"
        await other.adelete()
        assert summary(await client.receive("event"))[0] == "deleted"


async def test_without_transitions_only_matching_changes_are_sent(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", filters={"status": "published"})
        post = await Post.objects.acreate(title="a")
        post.status = "published"
        await post.asave()
        assert summary(await client.receive("event"))[0] == "updated"
        post.status = "draft"
        await post.asave()
        assert await client.receive_nothing()


async def test_subscriptions_with_and_without_transitions_get_separate_frames(realtime, api_key):
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", filters={"status": "published"})
        await client.subscribe(
            "posts", subscription="set", filters={"status": "published"}, transitions=True
        )
        post = await Post.objects.acreate(title="a")
        post.status = "published"
        await post.asave()
        frames = [await client.receive("event"), await client.receive("event")]
        assert {(f["event"], *f["subscriptions"]) for f in frames} == {
            ("updated", "posts"),
            ("entered", "set"),
        }


async def test_transitions_are_sent_when_visibility_changes(
    realtime, user, settings, django_user_model
):
    posts(settings, permission="tests.support.permissions.OwnPosts")
    other = await sync_to_async(django_user_model.objects.create_user)("eve")
    async with realtime(user=user) as ada:
        await ada.subscribe("posts", transitions=True)
        post = await Post.objects.acreate(title="a", owner=other)
        post.title = "b"
        await post.asave()
        assert await ada.receive_nothing()  # the row was never visible: not even its id is sent
        post.owner = user
        await post.asave()
        assert summary(await ada.receive("event"))[0] == "entered"
        post.owner = other
        await post.asave()
        frame = await ada.receive("event")
        assert (frame["event"], frame["document"]) == ("left", {"id": str(post.pk)})


async def test_subscription_to_one_document(realtime, api_key):
    async with realtime(token=api_key) as client:
        one = await Post.objects.acreate(title="one")
        two = await Post.objects.acreate(title="two")
        reply = await client.subscribe("posts", document=str(one.pk), snapshot=True)
        assert reply["filters"] == {}
        snapshot = await client.receive("snapshot")
        assert [d["id"] for d in snapshot["documents"]] == [str(one.pk)]
        await client.subscribe("posts", subscription="none", document="no such id")
        await client.subscribe("posts", subscription="int", document=two.pk, filters={"views": 1})
        await two.asave()
        await one.asave()
        frame = await client.receive("event")
        assert (frame["document"]["id"], frame["subscriptions"]) == (str(one.pk), ["posts"])
        two.views = 1
        await two.asave()
        assert (await client.receive("event"))["subscriptions"] == ["int"]


async def test_updates_are_limited_to_changed_fields(realtime, api_key, settings):
    posts(settings, fields=["title", "status"], filters=["status"])
    async with realtime(token=api_key) as client:
        await client.subscribe("posts", changed=["status"])
        post = await Post.objects.acreate(title="a")
        assert (await client.receive("event"))["event"] == "created"
        post.title = "b"
        await post.asave()
        post.status = "published"
        await post.asave()
        frame = await client.receive("event")
        assert (frame["event"], frame["changed"]) == ("updated", ["status"])
        for changed in (["views"], ["password"], ["nonsense"]):
            frame = {"type": "subscribe", "collection": "posts", "changed": changed}
            reply = await client.request(frame)
            assert (reply["code"], str(changed) in reply["message"]) == ("bad_request", True)


async def test_transitions_and_changed_require_tracked_old_values(realtime, api_key, settings):
    posts(settings, track=False)
    async with realtime(token=api_key) as client:
        for options in ({"transitions": True}, {"changed": ["title"]}):
            reply = await client.request({"type": "subscribe", "collection": "posts", **options})
            assert (reply["type"], reply["code"]) == ("error", "bad_request")
            assert "old values" in reply["message"]


async def test_transitions_are_replayed_after_reconnect(realtime, api_key):
    async with realtime(token=api_key) as client:
        ask = {"filters": {"status": "published"}, "transitions": True}
        reply = await client.subscribe("posts", **ask)
    post = await Post.objects.acreate(title="a")
    post.status = "published"
    await post.asave()
    post.status = "draft"
    await post.asave()
    async with realtime(token=api_key) as client:
        resumed = await client.subscribe(
            "posts", **ask, since=reply["cursor"], scope=reply["scope"]
        )
        assert resumed["resumed"] is True
        assert [summary(await client.receive("event"))[0] for _ in range(2)] == ["entered", "left"]
        other = await client.subscribe(
            "posts", filters=ask["filters"], scope=reply["scope"], since=reply["cursor"]
        )
        assert other["resync"] == {"reason": "scope_changed"}


@pytest.mark.parametrize("rule", ["meta", {"status": "archived"}])
async def test_soft_delete_is_sent_as_deleted_and_restore_as_created(
    realtime, api_key, settings, rule
):
    posts(settings, soft_delete=rule)
    visible = {"meta": None} if rule == "meta" else {"status": "draft"}
    hidden = {"meta": {"by": "ada"}} if rule == "meta" else {"status": "archived"}
    # the rule needs a path that can be null
    if rule == "meta":
        posts(settings, soft_delete={"meta.by": {"isnull": False}})
        visible = {"meta": {}}
    async with realtime(token=api_key) as client:
        post = await Post.objects.acreate(title="a", **visible)
        deleted = await Post.objects.acreate(title="deleted", **hidden)
        await client.subscribe("posts", snapshot=True)
        assert [d["id"] for d in (await client.receive("snapshot"))["documents"]] == [str(post.pk)]
        post.title = "b"
        await post.asave()
        assert summary(await client.receive("event")) == ("updated", str(post.pk), "b")
        for name, value in hidden.items():
            setattr(post, name, value)
        await post.asave()
        assert summary(await client.receive("event")) == ("deleted", str(post.pk), "b")
        post.title = "c"
        await post.asave()
        await deleted.adelete()
        for name, value in visible.items():
            setattr(post, name, value)
        await post.asave()
        frame = await client.receive("event")
        assert summary(frame) == ("created", str(post.pk), "c")
        assert "changed" not in frame


async def test_bulk_updates_are_sent_as_transitions(realtime, api_key):
    async with realtime(token=api_key) as client:
        await Item.objects.abulk_create([Item(name=str(n), size=n) for n in range(4)])
        await client.subscribe("items", filters={"size_gte": 2}, transitions=True, snapshot=True)
        assert len((await client.receive("snapshot"))["documents"]) == 2
        await Item.objects.filter(size__in=[1, 2]).aupdate(size=100)
        await Item.objects.filter(size=3).aupdate(size=0)
        events = sorted([(await client.receive("event"))["event"] for _ in range(3)])
        assert events == ["entered", "left", "updated"]


async def test_snapshot_is_ordered_limited_and_filtered(realtime, api_key, settings):
    posts(settings)
    async with realtime(token=api_key) as client:
        for title, rating in (("b", 2), ("a", None), ("B", 1), ("c", 3)):
            await Post.objects.acreate(title=title, rating=rating, status="published")
        await Post.objects.acreate(title="0")

        async def titles(**snapshot):
            await client.subscribe("posts", filters={"status": "published"}, snapshot=snapshot)
            frame = await client.receive("snapshot")
            return [d["data"]["title"] for d in frame["documents"]], frame.get("truncated", False)

        assert await titles(order="title") == (["B", "a", "b", "c"], False)
        assert await titles(order="-rating", limit=2) == (["c", "b"], True)
        assert await titles(order="rating", limit=1) == (["a"], True)
        for order in ("meta", "password", "owner__password", "nonsense"):
            ask = {"type": "subscribe", "collection": "posts", "snapshot": {"order": order}}
            assert (await client.request(ask))["code"] == "bad_request"


async def test_batched_events_have_the_same_content(realtime, api_key):
    async with realtime(token=api_key, authenticate=False) as client:
        await client.send({"type": "auth", "token": api_key, "batch": True})
        await client.receive("authenticated")
        await client.subscribe("items")
        await Item.objects.acreate(name="alone")
        assert (await client.receive("event"))["document"]["data"]["name"] == "alone"
        await Item.objects.abulk_create([Item(name=str(n)) for n in range(5)])
        frame = await client.receive("events")
        assert [e["document"]["data"]["name"] for e in frame["events"]] == list("01234")
        assert all(e["type"] == "event" and e["cursor"] for e in frame["events"])

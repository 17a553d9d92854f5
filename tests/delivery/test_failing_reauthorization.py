"""A permission raises when it is evaluated again: only its subscription or room ends."""

import asyncio

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime import permissions_changed
from django_cocobase_realtime.hub.hub import Hub
from tests.app.models import Message, Post
from tests.support import failing_code
from tests.support.failing_code import Failure

pytestmark = pytest.mark.django_db(transaction=True)
CODE = failing_code.__name__


@pytest.fixture(autouse=True)
def _configure(settings):
    Failure.reset()
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "permission": f"{CODE}.FailingPermission"},
            "messages": "app.Message",
        },
        "ROOMS": {"hall": {"permission": f"{CODE}.FailingRoom"}, "*": {}},
        "REVOCATION_POLL": 0.2,
    }
    yield
    Failure.reset()


@pytest.fixture
def bob(django_user_model):
    return django_user_model.objects.create_user("bob")


def failures(caplog):
    return [r for r in caplog.records if r.name.endswith("project_code")]


async def test_failing_permission_ends_its_subscription_alone(realtime, user, caplog):
    async with realtime(user=user) as ada:
        await ada.subscribe("messages")
        await ada.subscribe("posts", subscription="p")
        Failure.of("visible_to")
        await sync_to_async(permissions_changed)(user)
        await Message.objects.acreate(text="during the evaluation")
        frames = [await ada.receive() for _ in "ab"]
        (error,) = [frame for frame in frames if frame["type"] == "error"]
        assert (error["code"], error["subscription"]) == ("internal_error", "p")
        assert "id" not in error
        assert {f["collection"] for f in frames if f["type"] == "event"} == {"messages"}
        (record,) = failures(caplog)
        assert "visible_to of collection 'posts'" in record.getMessage()
        await Post.objects.acreate(title="not sent")
        await Message.objects.acreate(text="sent")
        assert (await ada.receive("event"))["collection"] == "messages"
        count = Failure.count
        await asyncio.sleep(0.8)  # the regular checks cause no loop
        assert len(failures(caplog)) == 1
        assert Failure.count == count
        Failure.reset()
        reply = await ada.request({"type": "unsubscribe", "subscription": "p"})
        assert reply["code"] == "not_subscribed"
        await ada.subscribe("posts", subscription="p")
        await Post.objects.acreate(title="sent again")
        assert (await ada.receive("event"))["subscriptions"] == ["p"]


async def test_failing_permission_of_a_room_ends_its_membership_alone(
    realtime, user, bob, settings, caplog
):
    settings.COCOBASE_REALTIME |= {"REVOCATION_POLL": 60}  # not also for bob
    async with realtime(user=user) as ada, realtime(user=bob) as other:
        await other.join("hall")
        await ada.join("hall")
        await ada.join("lobby")
        assert (await other.receive("presence"))["event"] == "joined"
        Failure.of("can_see_members")
        await sync_to_async(permissions_changed)(user)
        error = await ada.receive("error")
        assert (error["code"], error["room"]) == ("internal_error", "hall")
        assert (await other.receive("presence"))["event"] == "left"
        assert len(failures(caplog)) == 1
        Failure.reset()
        broadcast = {"type": "broadcast", "room": "lobby", "message": 1}
        assert (await ada.request(broadcast))["event"] == "broadcast"
        await ada.join("hall")


async def test_permission_without_database_closes_with_4101(realtime, user):
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        Failure.of("visible_to", failing_code.OPERATIONAL_ERROR)
        await sync_to_async(permissions_changed)(user)
        assert await ada.closed() == 4101


async def test_first_check_of_a_new_connection_reports_a_failure_once(realtime, user, caplog):
    """`Rechecks` evaluates the permission too, in the first round after `auth`."""
    async with realtime(user=user) as ada:
        await ada.subscribe("posts")
        Failure.of("can_subscribe")
        error = await ada.receive("error")
        assert error["subscription"] == "posts"
        await asyncio.sleep(0.8)
        assert len(failures(caplog)) == 1
        assert (await ada.request({"type": "ping"}))["type"] == "pong"


async def test_sdk_gets_an_error_when_its_subscription_ends(realtime, settings, caplog):
    settings.COCOBASE_REALTIME |= {"AUTHENTICATORS": [failing_code.AUTHENTICATOR]}
    for path, method in (("collections/posts", "visible_to"), ("rooms/hall", "can_join")):
        async with realtime(path=f"/realtime/{path}", authenticate=False) as sdk:
            await sdk.request({"api_key": "ada", "action": "create"})
            Failure.of(method)
            Hub.current().reauthorizer.request(list(Hub.current().connections.values()))
            assert (await sdk.receive())["type"] == "error"
            assert await sdk.request("ping") == {"event": "pong"}
            Failure.reset()
    assert len(failures(caplog)) == 2


async def test_failed_snapshot_ends_its_subscription_alone(realtime, api_key, monkeypatch, caplog):
    """Errors of the server itself, too, which would otherwise happen at each reconnection."""
    from django_cocobase_realtime.delivery import snapshot

    def fail(*args):
        raise failing_code.PROGRAMMING_ERROR

    monkeypatch.setattr(snapshot, "select_keys", fail)
    async with realtime(token=api_key) as app:
        await app.subscribe("messages")
        await app.subscribe("posts", subscription="p", snapshot=True)
        error = await app.receive("error")
        assert (error["code"], error["subscription"]) == ("internal_error", "p")
        assert "'p'" in caplog.text
        assert "'posts'" in caplog.text
        await Post.objects.acreate(title="not sent")
        await Message.objects.acreate(text="sent")
        assert (await app.receive("event"))["collection"] == "messages"


async def test_snapshot_without_database_closes_with_4101(realtime, api_key, monkeypatch):
    from django_cocobase_realtime.delivery import snapshot

    def fail(*args):
        raise failing_code.OPERATIONAL_ERROR

    monkeypatch.setattr(snapshot, "select_keys", fail)
    async with realtime(token=api_key) as app:
        await app.subscribe("posts", snapshot=True)
        assert await app.closed() == 4101

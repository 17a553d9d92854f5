"""The project's code raises: only what it was called for fails, and this is logged once."""

import threading

import pytest

from django_cocobase_realtime import Room, register_room
from django_cocobase_realtime.declarations.registry import room_registry
from tests.app.models import Message, Post
from tests.support import failing_code
from tests.support.failing_code import AUTHENTICATOR, Failure

pytestmark = pytest.mark.django_db(transaction=True)
CODE = failing_code.__name__


@pytest.fixture(autouse=True)
def _reset():
    Failure.reset()
    yield
    Failure.reset()


def configure(settings, permission="FailingPermission", room="FailingRoom", **more):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "permission": f"{CODE}.{permission}"},
            "messages": "app.Message",
        },
        "ROOMS": {"hall": {"permission": f"{CODE}.{room}"}, "*": {}},
        "AUTHENTICATORS": [AUTHENTICATOR],
        **more,
    }


def failures(caplog):
    return [r for r in caplog.records if r.name.endswith("project_code")]


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("__init__", None),
        ("can_subscribe", None),
        ("can_subscribe", failing_code.PROGRAMMING_ERROR),
        ("visible_to", None),
        ("nonsense", None),
        ("fields_for", None),
    ],
)
async def test_failing_permission_refuses_only_that_subscription(
    realtime, settings, caplog, method, error
):
    configure(settings)
    async with realtime(token="ada") as client:
        await client.subscribe("messages")
        Failure.of(method, error)
        request = {"type": "subscribe", "collection": "posts", "id": 7}
        reply = await client.request(request)
        assert (reply["type"], reply["code"], reply["id"]) == ("error", "internal_error", 7)
        assert "secret" not in str(reply)
        (record,) = failures(caplog)
        named = "visible_to" if method == "nonsense" else method
        assert f"FailingPermission.{named} of collection 'posts'" in record.getMessage()
        assert "test:ada" in record.getMessage()
        assert record.exc_info
        await Message.objects.acreate(text="still live")
        assert (await client.receive("event"))["collection"] == "messages"
        Failure.reset()
        assert (await client.request(request))["type"] == "subscribed"


async def test_failed_replacement_keeps_the_old_subscription(realtime, settings):
    configure(settings)
    async with realtime(token="ada") as client:
        await client.subscribe("posts")
        Failure.of("can_subscribe")
        reply = await client.request({"type": "subscribe", "collection": "posts"})
        assert reply["code"] == "internal_error"
        await Post.objects.acreate(title="x")
        assert (await client.receive("event"))["subscriptions"] == ["posts"]


async def test_permission_without_database_closes_with_4101(realtime, settings):
    configure(settings)
    Failure.of("can_subscribe", failing_code.OPERATIONAL_ERROR)
    async with realtime(token="ada") as client:
        await client.send({"type": "subscribe", "collection": "posts"})
        await client.send({"type": "subscribe", "collection": "messages"})
        closing = await client.receive("closing")
        assert closing["code"] == 4101
        assert await client.closed() == 4101


async def test_asynchronous_permissions_do_not_allow_everything(realtime, settings, caplog):
    configure(settings, "AsyncPermission", "AsyncRoom")
    async with realtime(token="ada") as client:
        for request in (
            {"type": "subscribe", "collection": "posts"},
            {"type": "join", "room": "hall"},
        ):
            assert (await client.request(request))["code"] == "internal_error"
    assert len(failures(caplog)) == 2


@pytest.mark.parametrize("method", ["can_join", "can_broadcast", "can_see_members"])
async def test_failing_room_permission_refuses_only_that_join(realtime, settings, caplog, method):
    configure(settings)
    async with realtime(token="ada") as client:
        await client.join("lobby")
        Failure.of(method)
        reply = await client.request({"type": "join", "room": "hall", "id": 7})
        assert (reply["code"], reply["id"]) == ("internal_error", 7)
        (record,) = failures(caplog)
        assert f"{method} of room 'hall'" in record.getMessage()
        assert "test:ada" in record.getMessage()
        Failure.reset()
        await client.join("hall")
        reply = await client.request({"type": "broadcast", "room": "lobby", "message": 1})
        assert reply["event"] == "broadcast"


async def test_failing_title_refuses_the_join_and_leaves_no_membership(realtime, settings, caplog):
    configure(settings)

    @register_room("titled")
    class Titled(Room):
        def get_title(self, room):
            Failure.check("get_title")
            return "Title"

    try:
        async with realtime(token="ada") as client:
            Failure.of("get_title")
            reply = await client.request({"type": "join", "room": "titled", "id": 7})
            assert (reply["code"], reply["id"]) == ("internal_error", 7)
            assert len(failures(caplog)) == 1
            leave = {"type": "leave", "room": "titled"}
            assert (await client.request(leave))["code"] == "not_joined"
            Failure.reset()
            assert (await client.join("titled"))["title"] == "Title"
    finally:
        room_registry.unregister("titled")


@pytest.mark.parametrize(
    ("value", "title"),
    [
        (None, "titled"),
        ("", "titled"),
        (" \0 ", "titled"),
        ("a\ud800\0b", "a?b"),
        ("x" * 5000, "x" * 255),
        (5, "5"),
    ],
)
async def test_title_is_cleaned(realtime, settings, value, title):
    configure(settings)

    @register_room("titled")
    class Titled(Room):
        def get_title(self, room):
            return value

    try:
        async with realtime(token="ada") as client:
            assert (await client.join("titled")).get("title", "titled") == title
    finally:
        room_registry.unregister("titled")


async def test_title_may_use_the_orm_and_does_not_block_the_event_loop(realtime, settings):
    configure(settings)
    may_end = threading.Event()

    @register_room("titled")
    class Titled(Room):
        def get_title(self, room):
            assert may_end.wait(10), "The event loop waits for the title."
            return f"{Post.objects.count()} posts"

    try:
        async with realtime(token="ada") as slow, realtime(token="eve") as other:
            await slow.send({"type": "join", "room": "titled"})
            await other.join("lobby")
            may_end.set()
            assert (await slow.receive("joined"))["title"] == "0 posts"
    finally:
        may_end.set()
        room_registry.unregister("titled")


async def test_rooms_with_failing_permission_are_left_out_of_the_list(
    realtime, settings, async_client, api_key
):
    configure(settings, AUTHENTICATORS=[AUTHENTICATOR])
    async with realtime(token="ada") as client:
        await client.join("hall")
        await client.join("lobby")
        Failure.of("can_join")
        response = await async_client.get("/realtime/rooms", headers={"X-API-Key": "ada"})
        assert [room["id"] for room in response.json()["rooms"]] == ["lobby"]
        response = await async_client.get("/realtime/rooms", headers={"X-API-Key": "bug"})
        assert response.status_code == 500
        assert "secret" not in response.content.decode()


async def test_client_cannot_flood_the_log(realtime, settings, caplog):
    """Two collections and two clients are logged each, but rooms of one declaration are not."""
    posts = {"model": "app.Post", "permission": f"{CODE}.FailingPermission"}
    configure(settings)
    settings.COCOBASE_REALTIME |= {
        "COLLECTIONS": {"posts": posts, "others": posts},
        "ROOMS": {"hall-*": {"permission": f"{CODE}.FailingRoom"}},
    }
    async with realtime(token="ada") as ada, realtime(token="bob") as bob:
        for client in (ada, bob):
            Failure.of("visible_to")
            for number in range(20):
                name = ("posts", "others")[number % 2]
                request = {"type": "subscribe", "collection": name}
                assert (await client.request(request))["code"] == "internal_error"
            Failure.of("can_join")
            for number in range(10):
                request = {"type": "join", "room": f"hall-{number}"}
                assert (await client.request(request))["code"] == "internal_error"
    messages = [record.getMessage() for record in failures(caplog)]
    assert len(messages) == 6
    for credential in ("test:ada", "test:bob"):
        for subject in ("collection 'posts'", "collection 'others'", "room 'hall-0'"):
            assert sum(subject in m and credential in m for m in messages) == 1


# authentication


async def test_failing_authenticator_is_logged_once(realtime, settings, caplog):
    configure(settings)
    async with realtime(authenticate=False) as client:
        for _ in range(3):
            reply = await client.request({"type": "auth", "token": "bug"})
            assert reply["code"] == "internal_error"
    assert len(failures(caplog)) == 1


@pytest.mark.parametrize("pipelined", [False, True])
async def test_failing_authenticator_allows_another_attempt(realtime, settings, caplog, pipelined):
    configure(settings)
    subscribe = {"type": "subscribe", "collection": "messages", "id": 2}
    async with realtime(authenticate=False) as client:
        await client.send({"type": "auth", "token": "bug", "id": 1})
        if pipelined:
            await client.send(subscribe)
        reply = await client.receive("error")
        assert (reply["code"], reply["id"]) == ("internal_error", 1)
        assert reply["retry_after_ms"] > 0
        if pipelined:
            reply = await client.receive("error")
            assert (reply["code"], reply["id"]) == ("not_authenticated", 2)
        (record,) = failures(caplog)
        assert AUTHENTICATOR in record.getMessage()
        assert "RuntimeError" in record.getMessage()
        assert "secret bug" not in caplog.text
        await client.send({"type": "auth", "token": "ada"})
        await client.receive("authenticated")
        assert (await client.request(subscribe))["type"] == "subscribed"


async def test_failed_renewal_keeps_the_old_credential(realtime, settings):
    configure(settings)
    async with realtime(token="ada") as client:
        reply = await client.request({"type": "auth", "token": "bug"})
        assert reply["code"] == "internal_error"
        await client.subscribe("messages")


async def test_another_authenticator_may_accept_the_token(realtime, settings, api_key, caplog):
    key = "django_cocobase_realtime.auth.api_key.ApiKeyAuthenticator"
    configure(settings, AUTHENTICATORS=[f"{CODE}.FailingAuthenticator", key])
    async with realtime(token=api_key):
        assert len(failures(caplog)) == 1
        assert api_key not in caplog.text


async def test_failing_revocation_check_does_not_prevent_the_others(realtime, settings, api_key):
    from datetime import UTC, datetime

    from django_cocobase_realtime.models import ApiKey

    key = "django_cocobase_realtime.auth.api_key.ApiKeyAuthenticator"
    configure(settings, AUTHENTICATORS=[key, AUTHENTICATOR], REVOCATION_POLL=0.1)
    Failure.of("revoked")
    async with realtime(token="ada") as ada, realtime(token=api_key) as app:
        await ApiKey.objects.aupdate(revoked_at=datetime.now(UTC))  # sends no signal
        assert await app.closed() == 4500
        assert (await ada.request({"type": "ping"}))["type"] == "pong"


# the dialect of the SDKs


async def test_sdk_gets_an_error_of_failing_permission_and_stays_connected(
    realtime, settings, caplog
):
    configure(settings)
    first = {"api_key": "ada"}
    for path, method in (("collections/posts", "can_subscribe"), ("rooms/hall", "can_join")):
        Failure.of(method)
        frame = {**first, "action": "create"}
        async with realtime(path=f"/realtime/{path}", authenticate=False) as sdk:
            reply = await sdk.request(frame)
            assert reply["type"] == "error"
            assert "secret" not in str(reply)
            # sent without waiting; there is no room yet
            await sdk.send({"type": "message", "content": "hi"})
            assert await sdk.request({"type": "ping"}) == {"type": "pong"}
            Failure.reset()
            assert (await sdk.request(frame))["event"] in ("connected", "joined")
    assert len(failures(caplog)) == 2


@pytest.mark.parametrize("pipelined", [False, True])
async def test_sdk_may_authenticate_again_after_failing_authenticator(
    realtime, settings, pipelined
):
    configure(settings)
    async with realtime(path="/realtime/rooms/lobby", authenticate=False) as sdk:
        await sdk.send({"api_key": "bug"})
        if pipelined:
            await sdk.send({"type": "message", "content": "hi"})
        assert (await sdk.receive())["type"] == "error"
        reply = await sdk.request({"api_key": "ada", "action": "create"})
        assert reply["event"] == "joined"

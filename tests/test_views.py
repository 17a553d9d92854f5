"""The HTTP views: health, ``GET rooms`` and ``POST publish``, under ASGI and WSGI."""

import json
import time

import pytest
from asgiref.sync import sync_to_async
from django.db import DatabaseError
from django.test import AsyncClient, Client

from django_cocobase_realtime.auth.throttling import AuthThrottle
from django_cocobase_realtime.models import ApiKey

URL = "/realtime/publish"


@pytest.fixture
def publish_key(transactional_db):
    return ApiKey.objects.create_key("server", can_publish=True)[1]


@pytest.fixture(autouse=True)
def _fresh_throttle(monkeypatch):
    monkeypatch.setattr("django_cocobase_realtime.auth.throttling.auth_throttle", AuthThrottle())


async def post(body, key=None, **headers):
    if key:
        headers["X-API-Key"] = key
    data = body if isinstance(body, str | bytes) else json.dumps(body)
    response = await AsyncClient().post(
        URL, data, content_type="application/json", headers=headers or None
    )
    return response.status_code, response.json()


@pytest.mark.django_db
def test_health_and_readiness_report_database_and_layer(client, settings, monkeypatch):
    assert client.get("/realtime/health").json() == {"status": "ok"}
    assert client.get("/realtime/ready").json() == {"status": "ok"}
    assert client.post("/realtime/ready").status_code == 405
    settings.CHANNEL_LAYERS = {}
    assert client.get("/realtime/ready").status_code == 503

    def fail(self):
        raise DatabaseError("gone")

    monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.cursor", fail)
    response = client.get("/realtime/ready")
    assert (response.status_code, response.json()) == (503, {"status": "database unavailable"})


async def test_publish_sends_to_rooms(realtime, user, publish_key):
    async with realtime(user=user) as ada:
        await ada.join("news")
        assert await post({"room": "news", "message": {"n": 1}}, publish_key) == (202, {"sent": 1})
        event = await ada.receive("event")
        assert (event["message"], event["sender"]) == ({"n": 1}, None)
        messages = [
            {"room": "news", "message": n, "idempotency_key": f"k{n % 3}"} for n in range(5)
        ]
        body = {"messages": [*messages, {"room": "elsewhere", "message": None}]}
        response = await post(body, Authorization=f"Bearer {publish_key}")
        assert response == (202, {"sent": 4})
        assert [(await ada.receive("event"))["message"] for _ in range(3)] == [0, 1, 2]
        assert await post({"room": "*", "message": "all"}, publish_key) == (202, {"sent": 1})
        assert (await ada.receive("event"))["room"] == "*"
        assert await ada.receive_nothing()


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ("{", 400, "JSON"),
        (b"\xff", 400, "UTF-8"),
        ("[]", 400, "object"),
        ({}, 400, "room"),
        ({"room": "r"}, 400, "message"),
        ({"room": 5, "message": 1}, 400, "room: Expected string"),
        ({"room": "", "message": 1}, 400, "room"),
        ({"room": "x" * 200, "message": 1}, 400, "128 bytes"),
        ({"room": "r", "message": "x" * 300_000}, 413, "262144"),
        ({"messages": []}, 400, "1 to 100"),
        ({"messages": [{"room": "r", "message": 1}] * 101}, 400, "1 to 100"),
        ({"messages": {"room": "r"}}, 400, "array"),
        ({"messages": [{"room": "r"}]}, 400, "message"),
        ({"room": "r", "message": 1, "messages": []}, 400, "either"),
        ({"room": "r", "message": 1, "idempotency_key": ""}, 400, "idempotency_key"),
        ('{"room": "r", "message": 1, "room": "s"}', 400, "twice"),
    ],
)
async def test_publish_with_invalid_body_names_the_mistake(publish_key, body, status, word):
    returned, response = await post(body, publish_key)
    assert returned == status
    assert word in response["detail"]


async def test_publish_of_batch_with_invalid_message_sends_nothing(realtime, user, publish_key):
    async with realtime(user=user) as ada:
        await ada.join("r")
        messages = [{"room": "r", "message": 1}, {"room": "x" * 200, "message": 2}]
        assert (await post({"messages": messages}, publish_key))[0] == 400
        assert await ada.receive_nothing()


async def test_publish_requires_key_with_permission(api_key, publish_key, user):
    body = {"room": "r", "message": 1}
    assert (await post(body))[0] == 401
    assert (await post(body, "crk_12345678_nonsense"))[0] == 401
    assert (await post(body, Authorization="Basic x"))[0] == 401
    status, response = await post(body, api_key)
    assert status == 403
    assert "--publish" in response["detail"]
    client = AsyncClient()
    await client.aforce_login(user)  # a session cookie is not accepted here
    assert (await client.post(URL, body, content_type="application/json")).status_code == 401
    assert (await client.get(URL)).status_code == 405


async def test_publish_after_failed_attempts_is_delayed(publish_key, settings):
    settings.COCOBASE_REALTIME = {"LIMITS": {"failed_auths_per_minute": 2}}
    for number in range(2):
        began = time.monotonic()
        assert (await post({}, f"wrong{number}"))[0] == 401
        assert time.monotonic() - began < 0.9
    began = time.monotonic()
    assert (await post({"room": "r", "message": 1}, publish_key))[0] == 202
    assert time.monotonic() - began >= 1


async def test_rooms_lists_rooms_of_project(realtime, user, api_key, publish_key):
    other = (await sync_to_async(ApiKey.objects.create_key)("o", project="other"))[1]
    async with (
        realtime(user=user) as ada,
        realtime(token=api_key) as app,
        realtime(token=other) as far,
    ):
        await ada.join("lobby")
        await app.join("lobby")
        await far.join("lobby")
        await far.join("secret")
        client = AsyncClient()
        response = (await client.get("/realtime/rooms", headers={"X-API-Key": api_key})).json()
        assert response["total"] == 1
        (room,) = response["rooms"]
        assert (room["id"], room["title"], room["created_by"], room["participants"]) == (
            "lobby",
            "lobby",
            str(user.pk),
            2,
        )
        member = {"id": str(user.pk), "name": "ada", "verified": True}
        assert (room["participant_list"][0], room["created_by_verified"]) == (member, True)
        assert abs(room["created_at"] - time.time()) < 60
        url = "/realtime/rooms?format=list"
        response = await sync_to_async(Client().get)(url, headers={"X-API-Key": api_key})  # WSGI
        assert response.json() == [room]
        for headers in ({}, {"X-API-Key": "wrong"}):
            response = await client.get("/realtime/rooms", headers=headers)
            assert response.status_code == 401
            assert response.json()["detail"]


class OpenRooms:
    def can_join(self, identity, room):
        return room.startswith("open")

    def can_see_members(self, identity, room):
        return room != "open-secret"


async def test_rooms_omits_rooms_that_may_not_be_joined(realtime, user, api_key, settings):
    settings.COCOBASE_REALTIME = {}
    async with realtime(user=user) as ada:
        for room in ("open", "open-secret", "closed"):
            await ada.join(room)
        settings.COCOBASE_REALTIME = {"ROOMS": {"*": {"permission": f"{__name__}.OpenRooms"}}}
        client = AsyncClient()
        response = (await client.get("/realtime/rooms", headers={"X-API-Key": api_key})).json()
        assert [
            (r["id"], r["participants"], len(r["participant_list"])) for r in response["rooms"]
        ] == [
            ("open", 1, 1),
            ("open-secret", 1, 0),
        ]
        creators = [(r["created_by"], r["created_by_verified"]) for r in response["rooms"]]
        assert creators == [(str(user.pk), True), ("", None)]


async def test_rooms_shows_claimed_users_as_unverified(realtime, user, api_key):
    """An SDK client with a public key claims to be a user, who then enters the same room."""
    claim = {"api_key": api_key, "user_id": str(user.pk), "user_name": "ada", "action": "create"}
    async with (
        realtime(path="/realtime/rooms/lounge", authenticate=False) as impostor,
        realtime(user=user) as ada,
    ):
        await impostor.request(claim)
        await ada.join("lounge")
        response = await AsyncClient().get("/realtime/rooms", headers={"X-API-Key": api_key})
        (room,) = response.json()["rooms"]
        assert (room["created_by"], room["created_by_verified"]) == (str(user.pk), False)
        assert room["participant_list"] == [
            {"id": str(user.pk), "name": "ada", "verified": False},
            {"id": str(user.pk), "name": "ada", "verified": True},
        ]

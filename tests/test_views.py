"""``GET rooms`` and ``POST publish``, under ASGI and WSGI alike."""

import json
import time

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient, Client

from django_cocobase_realtime.auth.throttling import AuthThrottle
from django_cocobase_realtime.models import ApiKey

URL = "/realtime/publish"


@pytest.fixture
def publish_key(transactional_db):
    return ApiKey.objects.create_key("server", can_publish=True)[1]


@pytest.fixture(autouse=True)
def _no_memory(monkeypatch):
    monkeypatch.setattr("django_cocobase_realtime.auth.throttling.auth_throttle", AuthThrottle())


async def post(body, key=None, **headers):
    if key:
        headers["X-API-Key"] = key
    data = body if isinstance(body, str | bytes) else json.dumps(body)
    answer = await AsyncClient().post(
        URL, data, content_type="application/json", headers=headers or None
    )
    return answer.status_code, answer.json()


async def test_publish(realtime, user, publish_key):
    async with realtime(user=user) as ada:
        await ada.join("news")
        assert await post({"room": "news", "message": {"n": 1}}, publish_key) == (202, {"sent": 1})
        event = await ada.receive("event")
        assert (event["message"], event["sender"]) == ({"n": 1}, None)
        messages = [
            {"room": "news", "message": n, "idempotency_key": f"k{n % 3}"} for n in range(5)
        ]
        body = {"messages": [*messages, {"room": "elsewhere", "message": None}]}
        answer = await post(body, Authorization=f"Bearer {publish_key}")
        assert answer == (202, {"sent": 4})
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
async def test_a_bad_body_is_told_what_is_wrong(publish_key, body, status, word):
    found, answer = await post(body, publish_key)
    assert found == status
    assert word in answer["detail"]


async def test_nothing_of_a_bad_batch_is_sent(realtime, user, publish_key):
    async with realtime(user=user) as ada:
        await ada.join("r")
        messages = [{"room": "r", "message": 1}, {"room": "x" * 200, "message": 2}]
        assert (await post({"messages": messages}, publish_key))[0] == 400
        assert await ada.receive_nothing()


async def test_who_may_publish(api_key, publish_key, user):
    body = {"room": "r", "message": 1}
    assert (await post(body))[0] == 401
    assert (await post(body, "crk_12345678_nonsense"))[0] == 401
    assert (await post(body, Authorization="Basic x"))[0] == 401
    status, answer = await post(body, api_key)
    assert status == 403
    assert "--publish" in answer["detail"]
    client = AsyncClient()
    await client.aforce_login(user)  # a cookie proves nothing here
    assert (await client.post(URL, body, content_type="application/json")).status_code == 401
    assert (await client.get(URL)).status_code == 405


async def test_failures_are_counted_and_answered_late(publish_key, settings):
    settings.COCOBASE_REALTIME = {"LIMITS": {"failed_auths_per_minute": 2}}
    for number in range(2):
        began = time.monotonic()
        assert (await post({}, f"wrong{number}"))[0] == 401
        assert time.monotonic() - began < 0.9
    began = time.monotonic()
    assert (await post({"room": "r", "message": 1}, publish_key))[0] == 202
    assert time.monotonic() - began >= 1


async def test_rooms(realtime, user, api_key, publish_key):
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
        answer = (await client.get("/realtime/rooms", headers={"X-API-Key": api_key})).json()
        assert answer["total"] == 1
        (room,) = answer["rooms"]
        assert (room["id"], room["title"], room["created_by"], room["participants"]) == (
            "lobby",
            "lobby",
            str(user.pk),
            2,
        )
        assert room["participant_list"][0] == {"id": str(user.pk), "name": "ada"}
        assert abs(room["created_at"] - time.time()) < 60
        url = "/realtime/rooms?format=list"
        answer = await sync_to_async(Client().get)(url, headers={"X-API-Key": api_key})  # WSGI
        assert answer.json() == [room]
        for headers in ({}, {"X-API-Key": "wrong"}):
            answer = await client.get("/realtime/rooms", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["detail"]


class Mine:
    def can_join(self, identity, room):
        return room.startswith("open")

    def can_see_members(self, identity, room):
        return room != "open-secret"


async def test_rooms_that_one_may_not_join_are_not_listed(realtime, user, api_key, settings):
    settings.COCOBASE_REALTIME = {}
    async with realtime(user=user) as ada:
        for room in ("open", "open-secret", "closed"):
            await ada.join(room)
        settings.COCOBASE_REALTIME = {"ROOMS": {"*": {"permission": f"{__name__}.Mine"}}}
        client = AsyncClient()
        answer = (await client.get("/realtime/rooms", headers={"X-API-Key": api_key})).json()
        assert [
            (r["id"], r["participants"], len(r["participant_list"])) for r in answer["rooms"]
        ] == [
            ("open", 1, 1),
            ("open-secret", 1, 0),
        ]
        assert [r["created_by"] for r in answer["rooms"]] == [str(user.pk), ""]

"""Bounds on HTTP requests: rates, and the pages of ``GET rooms``."""

import asyncio
import logging
import time

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from django_cocobase_realtime.auth.throttling import AuthThrottle
from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.presence.base import PresenceEntry
from django_cocobase_realtime.presence.memory import MemoryPresence
from django_cocobase_realtime.utils.limits import KeyedRate
from django_cocobase_realtime.views import base

URL = "/realtime/rooms"
# the header X-Forwarded-For of the test client is used
PROXY = {"TRUSTED_PROXIES": ["127.0.0.1"]}


class Rooms(MemoryPresence):
    """Presence of one test."""

    def open(self, *names, members=1):
        self.renew_lease("server", 600)
        for name in names:
            for n in range(members):
                key = ("default", name)
                self.enter(PresenceEntry(key, f"{name} {n}", "server", f"m{n}", f"M{n}", name))


@pytest.fixture(autouse=True)
def rooms(monkeypatch, settings):
    settings.COCOBASE_REALTIME = PROXY
    monkeypatch.setattr("django_cocobase_realtime.auth.throttling.auth_throttle", AuthThrottle())
    monkeypatch.setattr(base, "_rates", KeyedRate())
    rooms = Rooms(None)
    monkeypatch.setattr("django_cocobase_realtime.rooms.listing.get_backend", lambda: rooms)
    return rooms


async def get(key, query="", address="127.0.0.1"):
    headers = {"X-API-Key": key, "X-Forwarded-For": address}
    response = await AsyncClient().get(URL + query, headers=headers)
    return response.status_code, response.json(), response


async def get_pages(key, limit):
    pages, query = [], f"?limit={limit}"
    while True:
        status, body, _ = await get(key, query)
        assert status == 200
        assert body["total"] == len(body["rooms"])
        pages.append([room["id"] for room in body["rooms"]])
        if body["next"] is None:
            return pages
        query = f"?limit={limit}&after={body['next']}"


async def test_rooms_are_listed_in_pages(api_key, rooms):
    names = [f"room {n:03}" for n in range(120)]
    rooms.open(*names)
    assert await get_pages(api_key, 50) == [names[:50], names[50:100], names[100:]]
    assert await get_pages(api_key, 60) == [names[:60], names[60:]]
    assert await get_pages(api_key, 1000) == [names]
    _, body, _ = await get(api_key)
    assert body["total"] == 100
    _, array, _ = await get(api_key, "?format=list")
    assert [room["id"] for room in array] == names
    _, array, _ = await get(api_key, "?format=list&limit=3")
    assert [room["id"] for room in array] == names[:3]


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=1001", "limit=x", "limit=-1", "limit=%C2%B2", "limit=9999999999"),
        *("after=x", "after=0:a", "after=%C2%B2", "after="),
    ],
)
async def test_invalid_page_is_refused(api_key, query):
    status, body, _ = await get(api_key, f"?{query}")
    assert status == 400
    assert body["detail"].startswith(query[:5])


class EvenRooms:
    """Counts how often it is asked."""

    asked = 0
    seconds = 0.0

    def can_join(self, identity, room):
        EvenRooms.asked += 1
        time.sleep(EvenRooms.seconds)
        return int(room) % 2 == 0


class NoRooms:
    asked = 0

    def can_join(self, identity, room):
        NoRooms.asked += 1
        return False


class BrokenRooms:
    def can_join(self, identity, room):
        if "bad" in room:
            raise ValueError("broken")
        return True


def declare(settings, permission):
    settings.COCOBASE_REALTIME = {
        "ROOMS": {"*": {"permission": f"{__name__}.{permission.__name__}"}}
    }


async def test_permissions_are_evaluated_for_one_page_only(api_key, rooms, settings):
    declare(settings, EvenRooms)
    names = [f"{n:05}" for n in range(2000)]
    rooms.open(*names)
    EvenRooms.asked = 0
    _, body, _ = await get(api_key, "?limit=20")
    assert [room["id"] for room in body["rooms"]] == names[:40:2]
    assert EvenRooms.asked <= 42
    pages = await get_pages(api_key, 200)
    assert [name for page in pages for name in page] == names[::2]


async def test_page_without_visible_rooms_ends_and_names_none_of_them(api_key, rooms, settings):
    declare(settings, NoRooms)
    rooms.open(*(f"hidden {n:05}" for n in range(2500)))
    NoRooms.asked = 0
    status, body, response = await get(api_key)
    assert (status, body["rooms"], NoRooms.asked) == (200, [], 1000)
    assert b"hidden" not in response.content
    NoRooms.asked = 0
    assert await get_pages(api_key, 100) == [[], [], []]
    assert NoRooms.asked == 2500


async def test_page_of_slow_permissions_ends_after_a_second(api_key, rooms, settings, monkeypatch):
    declare(settings, EvenRooms)
    monkeypatch.setattr(EvenRooms, "seconds", 0.1)
    rooms.open(*(f"{n:05}" for n in range(100)))
    started_at = time.monotonic()
    _, body, _ = await get(api_key)
    assert time.monotonic() - started_at < 3
    assert 1 <= len(body["rooms"]) <= 6
    assert body["next"] is not None


async def test_page_with_many_members_ends_before(api_key, rooms):
    rooms.open("a", "b", "c", members=6000)
    assert await get_pages(api_key, 100) == [["a"], ["b"], ["c"]]


async def test_room_whose_permission_fails_is_left_out(api_key, rooms, settings, caplog):
    declare(settings, BrokenRooms)
    rooms.open("a", "bad 1", "bad 2", "c")
    with caplog.at_level(logging.ERROR, "django_cocobase_realtime"):
        assert await get_pages(api_key, 100) == [["a", "c"]]
    (record,) = caplog.records
    assert "bad 1" in record.getMessage()
    assert api_key not in caplog.text


async def test_requests_of_a_key_are_limited_per_address(api_key, settings):
    settings.COCOBASE_REALTIME = {**PROXY, "LIMITS": {"http_rate": (0.01, 3)}}
    for _ in range(3):
        assert (await get(api_key, address="10.0.0.9"))[0] == 200
    status, body, response = await get(api_key, address="10.0.0.9")
    assert status == 429
    assert body["detail"]
    assert 80 <= int(response["Retry-After"]) <= 100
    assert (await get(api_key, address="10.0.0.8"))[0] == 200


async def test_requests_of_a_user_are_limited_at_all_addresses(user, settings):
    settings.COCOBASE_REALTIME = {**PROXY, "LIMITS": {"http_rate": (0.01, 3)}}
    key = (await sync_to_async(ApiKey.objects.create_key)("k", user=user))[1]
    statuses = [(await get(key, address=f"10.0.0.{n}"))[0] for n in range(4)]
    assert statuses == [200, 200, 200, 429]


async def test_requests_of_an_address_are_limited_before_authentication(api_key, settings):
    settings.COCOBASE_REALTIME = {**PROXY, "LIMITS": {"http_rate": (0.01, 3)}}
    for n in range(3):
        assert (await get(f"wrong {n}"))[0] == 401
    assert (await get(api_key))[0] == 429
    response = await AsyncClient().post(
        "/realtime/publish", {"room": "r", "message": 1}, content_type="application/json"
    )
    assert response.status_code == 429


async def test_many_delayed_attempts_of_an_address_are_refused(api_key, settings):
    settings.COCOBASE_REALTIME = {**PROXY, "LIMITS": {"failed_auths_per_minute": 1}}
    assert (await get("wrong"))[0] == 401
    requests = [asyncio.create_task(get(f"wrong {n}")) for n in range(30)]
    # another address does not wait
    assert (await get(api_key, address="10.0.0.7"))[0] == 200
    assert any(not request.done() for request in requests)
    answers = [await request for request in requests]
    statuses = [status for status, _, _ in answers]
    assert statuses.count(401) + statuses.count(429) == 30
    assert 5 <= statuses.count(401) <= 15
    assert {r["Retry-After"] for status, _, r in answers if status == 429} == {"1"}


def test_rates_of_keys_that_were_not_used_lately_are_forgotten():
    rates = KeyedRate()
    assert rates.acquire("first", (1, 1), 0.0) == 0
    assert rates.acquire("first", (1, 1), 0.0) > 0
    assert rates.acquire("first", (2, 5), 0.0) == 0  # the setting has changed
    for n in range(20_000):
        rates.acquire(n, (1, 1), 0.0)
    assert len(rates._buckets) == 10_000

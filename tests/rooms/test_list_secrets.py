"""The list of rooms reveals nothing of rooms that the client may not join."""

from urllib.parse import quote

import pytest
from asgiref.sync import sync_to_async
from django.test import AsyncClient

from django_cocobase_realtime.auth.throttling import AuthThrottle
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.presence.base import PresenceEntry
from django_cocobase_realtime.presence.memory import MemoryPresence
from django_cocobase_realtime.rooms import list_tokens, listing
from django_cocobase_realtime.utils.limits import KeyedRate
from django_cocobase_realtime.views import base
from tests.support.tokens import KEY, create_token

SECRET = "secret-4f2a"
ALPHABET = "-0123456789abcdefghijklmnopqrstuvwxyz"


class NoSecrets:
    def can_join(self, identity, room):
        return not room.startswith("secret")


@pytest.fixture(autouse=True)
def presence(monkeypatch, settings):
    settings.COCOBASE_REALTIME = {
        "ROOMS": {"*": {"permission": f"{__name__}.NoSecrets"}},
        "JWT": {"KEY": KEY},
        "LIMITS": {"http_rate": (1000, 1000)},
    }
    monkeypatch.setattr("django_cocobase_realtime.auth.throttling.auth_throttle", AuthThrottle())
    monkeypatch.setattr(base, "_rates", KeyedRate())
    presence = MemoryPresence(None)
    presence.renew_lease("server", 600)
    monkeypatch.setattr(listing, "get_backend", lambda: presence)
    return presence


def open_rooms(presence, *names):
    for name in names:
        presence.enter(PresenceEntry(("default", name), f"c {name}", "server", "m", "M", name))


async def get(token, **query):
    text = "&".join(f"{name}={quote(str(value))}" for name, value in query.items())
    url = f"/realtime/rooms?{text}"
    response = await AsyncClient().get(url, headers={"Authorization": f"Bearer {token}"})
    return response.status_code, response.json()


def ids(body):
    return [room["id"] for room in body.get("rooms", [])]


async def test_client_cannot_find_out_names_by_choosing_positions(api_key, presence):
    """Find the name of a hidden room letter by letter, as a client could with chosen positions."""
    open_rooms(presence, SECRET, "zzz")

    async def is_hidden_room_after(name):
        """Return whether skipping one room after a name leaves out none that is visible."""
        _, body = await get(api_key, limit=1000, after=f"1:{name}")
        return "zzz" in ids(body)

    found = "secret-"
    while await is_hidden_room_after(found):
        low, high = 0, len(ALPHABET) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if await is_hidden_room_after(f"{found}{ALPHABET[middle - 1]}\U0010ffff"):
                low = middle
            else:
                high = middle - 1
        found += ALPHABET[low]
    assert found == "secret-"
    status, body = await get(api_key, after="0:a")
    assert (status, body["detail"].partition(":")[0]) == (400, "after")


@pytest.mark.parametrize("hidden", [0, 1, 700])
async def test_pages_are_the_same_with_and_without_hidden_rooms(api_key, presence, hidden):
    visible = ["a", *(f"t{number}" for number in range(9)), "z"]
    open_rooms(presence, *visible, *(f"secret {number}" for number in range(hidden)))
    lengths, names, query = set(), [], {}
    while True:
        status, body = await get(api_key, limit=4, **query)
        assert status == 200
        assert body["total"] == len(body["rooms"])
        names.append(ids(body))
        if body["next"] is None:
            break
        lengths.add(len(body["next"]))
        assert "secret" not in str(body)
        query = {"after": body["next"]}
    assert names == [visible[:4], visible[4:8], visible[8:]]
    assert len(lengths) == 1


async def test_visible_rooms_do_not_help_to_count_hidden_ones(api_key, presence):
    """A client opens as many rooms as are evaluated for a page, to see how many were not its."""
    open_rooms(presence, *(f"own {number:04}" for number in range(990)))
    open_rooms(presence, *(f"secret {number}" for number in range(40)))
    open_rooms(presence, "z")
    _, body = await get(api_key, limit=1000)
    assert (body["total"], body["next"]) == (991, None)


async def test_next_does_not_reveal_where_a_hidden_room_is(api_key, presence):
    """A client opens rooms before and after a hidden one, and asks with a position from before."""
    open_rooms(presence, "a", SECRET, "z")
    _, body = await get(api_key, limit=1)
    open_rooms(presence, "b", "t")
    _, rest = await get(api_key, after=body["next"])
    assert ids(rest) == ["b", "t", "z"]


async def test_page_that_ends_early_continues_after_its_last_room(api_key, presence, monkeypatch):
    monkeypatch.setattr(listing, "MAX_HIDDEN", 3)
    open_rooms(presence, "a", *(f"secret {number}" for number in range(5)), "z")
    pages, query = [], {}
    while query is not None:
        _, body = await get(api_key, **query)
        pages.append(ids(body))
        query = {"after": body["next"]} if body["next"] else None
    assert pages == [["a"], [], ["z"]]


async def test_next_is_valid_for_one_identity_and_secret_key(
    api_key, presence, user, settings, django_user_model
):
    open_rooms(presence, "a", "b")
    key = (await sync_to_async(ApiKey.objects.create_key)("other"))[1]
    other = await django_user_model.objects.acreate(username="other")
    tokens = [api_key, key, create_token(user), create_token(other)]
    positions = [(await get(token, limit=1))[1]["next"] for token in tokens]
    for number, token in enumerate(tokens):
        answers = [(await get(token, after=position))[0] for position in positions]
        assert answers == [200 if place == number else 400 for place in range(len(tokens))]
        forged = positions[number][:-2] + ("A=" if positions[number][-2] != "A" else "B=")
        for text in (forged, positions[number][1:], "é", "x" * 10_000, ""):
            assert (await get(token, after=text))[0] == 400
    # another token of the same user continues
    assert ids((await get(create_token(user), after=positions[2]))[1]) == ["b"]
    settings.SECRET_KEY = "another secret key"
    status, body = await get(api_key, after=positions[0])
    assert status == 400
    assert "next" in body["detail"]


def test_tokens_differ_and_have_one_length():
    identity = Identity("key:abc")
    one, two = (list_tokens.encode(identity, SECRET) for _ in range(2))
    assert one != two
    for name in ("", "a", "日本" * 20, "\ud800", "x" * 128):
        token = list_tokens.encode(identity, name)
        assert len(token) == len(one)
        assert list_tokens.decode(identity, token) == name

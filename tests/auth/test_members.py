"""The names that other clients see: of Django users, keys and tokens, and by the MEMBER setting."""

import pytest
from django.db import OperationalError
from django.utils.functional import lazystr

from django_cocobase_realtime.auth.backends import authenticate
from django_cocobase_realtime.identity import display_name
from django_cocobase_realtime.models import ApiKey
from tests.support.tokens import create_token

pytestmark = pytest.mark.django_db(transaction=True)
ADDRESS = "ada@example.org"
JWT = {"KEY": "a-shared-secret-of-more-than-32-bytes!"}


@pytest.fixture
def ada(django_user_model):
    """A user who logs in by e-mail address."""
    return django_user_model.objects.create_user(ADDRESS, email=ADDRESS)


class EmailUser:
    """A user model without the methods of Django's, whose text is the address."""

    pk = 7

    def __str__(self):
        return ADDRESS


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "User {pk}"),
        ({"first_name": "Ada"}, "Ada"),
        ({"first_name": " Ada ", "last_name": "Lovelace"}, "Ada"),
        ({"last_name": "Lovelace"}, "Lovelace"),
        ({"first_name": ADDRESS, "last_name": "Lovelace"}, "User {pk}"),
        ({"first_name": ADDRESS, "username": "countess"}, "countess"),
        ({"username": "countess"}, "countess"),
        ({"first_name": "\0"}, "User {pk}"),
    ],
)
def test_default_name_is_never_an_email_address(ada, fields, name):
    for field, value in fields.items():
        setattr(ada, field, value)
    assert display_name(ada) == name.format(pk=ada.pk)


def test_user_model_without_names_has_a_neutral_name(caplog):
    assert display_name(EmailUser()) == "User 7"
    assert caplog.text == ""


def test_name_that_raises_is_logged_and_replaced(ada, monkeypatch, caplog):
    monkeypatch.setattr(type(ada), "get_short_name", lambda self: 1 / 0)
    assert authenticate(create_token(ada), {}).name == f"User {ada.pk}"
    assert [record.getMessage() for record in caplog.records] == [
        f"get_short_name of user {ada.pk} failed."
    ]


def test_names_of_keys_and_subjects_are_never_email_addresses(settings):
    assert authenticate(ApiKey.objects.create_key("phone app")[1], {}).name == "phone app"
    assert authenticate(ApiKey.objects.create_key(f"for {ADDRESS}")[1], {}).name == "App"
    settings.COCOBASE_REALTIME = {"JWT": {**JWT, "USER_LOOKUP": None}}
    assert authenticate(create_token("7", name="Ada"), {}).name == "Ada"
    assert authenticate(create_token("7", name=ADDRESS), {}).name == "7"
    assert authenticate(create_token(ADDRESS), {}).name == "User"


async def test_email_address_is_in_no_frame_that_others_get(realtime, ada, user, rooms_of):
    async with realtime(user=user) as bob, realtime(user=ada) as client:
        await bob.join("r")
        await client.join("r")
        frames = [await bob.receive("presence")]
        await client.send({"type": "broadcast", "room": "r", "message": "Hi"})
        frames.append(await bob.receive("event"))
        frames.append(await bob.join("r"))
        frames.append(await rooms_of(user))
        assert ADDRESS not in str(frames)
        assert frames[0]["member"]["name"] == f"User {ada.pk}"
        assert frames[1]["sender"]["name"] == f"User {ada.pk}"


@pytest.fixture
def rooms_of(async_client):
    """Return a function that returns the answer of ``GET rooms``."""

    async def get(user):
        from asgiref.sync import sync_to_async

        token = await sync_to_async(create_token)(user)
        headers = {"Authorization": f"Bearer {token}"}
        response = await async_client.get("/realtime/rooms", headers=headers)
        assert response.status_code == 200
        return response.json()

    return get


# functions that tests name in MEMBER


def full_name(identity):
    return {"name": f"{identity.user.get_full_name()} of {identity.project}"}


def from_orm(identity):
    users = type(identity.user).objects
    return {"name": lazystr(f"one of {users.count()}")}


def failing(identity):
    raise RuntimeError("the profile is missing")


def without_database(identity):
    raise OperationalError("gone")


RESULT = {}


def configured(identity):
    return RESULT["value"]


async def test_member_setting_names_members_senders_and_the_user(
    realtime, ada, user, settings, rooms_of
):
    ada.first_name, ada.last_name = "Ada", "Lovelace"
    settings.COCOBASE_REALTIME = {"MEMBER": f"{__name__}.full_name", "JWT": JWT}
    name = "Ada Lovelace of default"
    async with realtime(user=user) as bob, realtime(user=ada, authenticate=False) as client:
        await bob.join("r")
        hello = await client.request({"type": "auth"})
        assert hello["user"] == {"id": str(ada.pk), "name": name}
        await client.join("r")
        assert (await bob.receive("presence"))["member"]["name"] == name
        await client.send({"type": "broadcast", "room": "r", "message": "Hi"})
        assert (await bob.receive("event"))["sender"]["name"] == name
        members = (await rooms_of(user))["rooms"][0]["participant_list"]
        assert {"id": str(ada.pk), "name": name, "verified": True} in members


async def test_member_setting_names_users_of_the_sdk(realtime, user, settings):
    settings.COCOBASE_REALTIME = {"MEMBER": f"{__name__}.from_orm", "JWT": JWT}
    async with (
        realtime(path="/realtime/rooms/r", authenticate=False) as one,
        realtime(path="/realtime/rooms/r", authenticate=False) as two,
    ):
        await one.request({"api_key": create_token(user), "action": "create"})
        await two.request({"api_key": create_token(user)})
        await one.send({"type": "message", "content": "Hi"})
        frame = await two.receive()
        while frame.get("type") != "message":
            frame = await two.receive()
        assert frame["user_name"] == "one of 1"


@pytest.mark.parametrize("function", ["failing", "missing"])
async def test_member_function_that_fails_is_logged_once(
    realtime, user, settings, caplog, function
):
    settings.COCOBASE_REALTIME = {"MEMBER": f"{__name__}.{function}", "JWT": JWT}
    async with realtime(token=create_token(user), authenticate=False) as client:
        for _ in range(3):
            hello = await client.request({"type": "auth", "token": create_token(user)})
            assert hello["user"]["name"] == "ada"
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert (
        f"{function} of the setting MEMBER failed for jwt:default:{user.pk}"
        in errors[0].getMessage()
    )


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "ada"),
        ({"name": "n" * 300}, "n" * 255),
        ({"name": " A\0da\ud800 "}, "Ada?"),
        ({"name": ADDRESS}, ADDRESS),  # the project's decision
        ({"name": ""}, "ada"),
        ({"name": None}, "ada"),
        ({"name": 5}, "ada"),
        ({}, "ada"),
        ("Ada", "ada"),
        ({"name": "Ada", "avatar": "x" * 10**6}, "ada"),
    ],
)
def test_result_of_member_function_is_checked(user, settings, caplog, value, name):
    settings.COCOBASE_REALTIME = {"MEMBER": f"{__name__}.configured", "JWT": JWT}
    RESULT["value"] = value
    assert authenticate(create_token(user), {}).name == name
    is_valid = value is None or name != "ada"
    assert [record.levelname for record in caplog.records] == ([] if is_valid else ["ERROR"])
    assert len(caplog.text) < 10_000


async def test_member_function_without_database_closes_connection_for_later(
    realtime, user, settings
):
    settings.COCOBASE_REALTIME = {"MEMBER": f"{__name__}.without_database", "JWT": JWT}
    async with realtime(authenticate=False) as client:
        await client.send({"type": "auth", "token": create_token(user)})
        assert await client.closed() == 4101

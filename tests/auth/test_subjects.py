"""Tokens without a Django user: ``USER_LOOKUP: None``. Their subject is never a user's id."""

import asyncio

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime import disconnect, permissions_changed, send_to_user
from django_cocobase_realtime.auth.backends import authenticate
from django_cocobase_realtime.events import DisconnectRequested, PermissionsChanged
from django_cocobase_realtime.identity import Identity, user_key
from django_cocobase_realtime.permissions import IsAuthenticated, owned_by
from tests.app.models import Author, Post
from tests.support.tokens import create_token

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "a-shared-secret-of-more-than-32-bytes!"
OwnAuthor = owned_by("id")
BySubject = owned_by("title", by="subject")


def configure(settings, **options):
    settings.COCOBASE_REALTIME = {
        "JWT": {"KEY": KEY, "USER_LOOKUP": None},
        "COLLECTIONS": {
            "authors": {"model": "app.Author", "permission": f"{__name__}.OwnAuthor"},
            "posts": {"model": "app.Post", "permission": f"{__name__}.BySubject"},
        },
        **options,
    }


@pytest.fixture(autouse=True)
def _settings(settings):
    configure(settings)


def test_subject_is_not_the_id_of_a_user(user):
    identity = authenticate(create_token(user.pk), {})
    assert (identity.user, identity.user_id) == (None, None)
    assert identity.subject == str(user.pk)
    assert identity.user_key == f"jwt:{user.pk}"
    of_user = Identity("session:x", user=user, user_id=user.pk)
    assert not identity.same_subject(of_user)
    assert not of_user.same_subject(identity)
    assert IsAuthenticated().can_subscribe(identity, {})
    for key in (str(user.pk), user_key(user.pk)):
        assert not PermissionsChanged((key,)).concerns(identity)
        assert not DisconnectRequested(code=4500, user=key).concerns(identity)


@pytest.mark.parametrize("pk", ["jwt:1", ":jwt:1", "a:b", "::"])
def test_user_whose_primary_key_looks_like_a_subject_is_another_one(pk):
    of_user = Identity("session:x", user_id=pk)
    others = [pk.removeprefix("jwt:"), pk, "1", pk.removeprefix(":jwt:")]
    for subject in others:
        identity = Identity(f"jwt:default:{subject}", subject=subject)
        assert identity.user_key != of_user.user_key
    keys = {user_key(text) for text in ("a:b", ":a:b", "::a:b", "a", "ab")}
    assert len(keys) == 5


def test_refresh_must_be_for_the_same_subject():
    one = authenticate(create_token("1"), {})
    assert one.same_subject(authenticate(create_token("1", role="x"), {}))
    assert not one.same_subject(authenticate(create_token("2"), {}))
    assert not one.same_subject(Identity("jwt:default:1"))


def test_longest_subject_fits_into_the_tables():
    identity = authenticate(create_token("s" * 250), {})
    assert len(identity.user_key) <= 255
    assert authenticate(create_token("s" * 251), {}) is None


def test_owned_by_takes_two_attributes_only():
    with pytest.raises(ValueError, match="by must be"):
        owned_by("owner", by="name")


async def test_subject_sees_no_rows_of_the_user_with_that_id(realtime, user):
    author = await Author.objects.acreate(name="Ada")
    async with realtime(token=create_token(author.pk)) as client:
        await client.subscribe("authors", snapshot=True)
        assert (await client.receive("snapshot"))["documents"] == []
        author.name = "Ada L."
        await author.asave()
        assert await client.receive_nothing()


async def test_rows_are_compared_with_the_subject(realtime, user):
    async with (
        realtime(token=create_token("x-1")) as mine,
        realtime(token=create_token("x-2")) as other,
        realtime(user=user) as of_user,
    ):
        for client in (mine, other, of_user):
            await client.subscribe("posts")
        await Post.objects.acreate(title="x-1")
        event = await mine.receive("event")
        assert event["document"]["data"]["title"] == "x-1"
        assert await other.receive_nothing()
        assert await of_user.receive_nothing()


async def test_subject_is_another_member_than_the_user_with_that_id(realtime, user):
    async with realtime(user=user) as ada, realtime(token=create_token(user.pk)) as external:
        await ada.join("r")
        reply = await external.join("r")
        assert reply["participants"] == 2
        assert {member["id"] for member in reply["members"]} == {str(user.pk), f"jwt:{user.pk}"}
        await ada.receive("presence")
        await external.send({"type": "broadcast", "room": "r", "message": "Hi"})
        assert (await ada.receive("event"))["sender"]["id"] == f"jwt:{user.pk}"


async def test_server_functions_address_user_and_subject_separately(realtime, user):
    token = create_token(user.pk)
    identity = await sync_to_async(authenticate)(token, {})
    async with realtime(user=user) as ada, realtime(authenticate=False) as external:
        hello = await external.request({"type": "auth", "token": token})
        assert hello["user"]["id"] == f"jwt:{user.pk}"
        for target in (user, user.pk, str(user.pk)):
            await sync_to_async(send_to_user)(target, "for the user")
            assert (await ada.receive("event"))["message"] == "for the user"
        for target in (identity, identity.user_key):
            await sync_to_async(send_to_user)(target, "for the subject")
            assert (await external.receive("event"))["message"] == "for the subject"
        assert await ada.receive_nothing()
        await sync_to_async(permissions_changed)(identity)
        await asyncio.sleep(0.2)
        assert await external.receive_nothing()
        await sync_to_async(disconnect)(user=identity.user_key)
        assert await external.closed() == 4500
        assert await ada.receive_nothing()


async def test_deleted_user_leaves_the_subject_with_that_id_connected(realtime, user):
    async with realtime(user=user) as ada, realtime(token=create_token(user.pk)) as external:
        await sync_to_async(user.delete)()
        assert await ada.closed() == 4500
        assert await external.receive_nothing()


async def test_connections_are_counted_separately(realtime, user, settings):
    configure(settings, LIMITS={"connections_per_user": 1})
    token = create_token(user.pk)
    async with (
        realtime(token=token),
        realtime(user=user),
        realtime(authenticate=False) as client,
    ):
        await client.send({"type": "auth", "token": token})
        assert await client.closed() == 4504


async def test_sdk_gets_the_prefixed_id(realtime, user):
    first = {"api_key": create_token(user.pk), "action": "create", "user_id": str(user.pk)}
    async with realtime(path="/realtime/rooms/r", authenticate=False) as sdk:
        assert (await sdk.request(first))["user_id"] == f"jwt:{user.pk}"
    async with realtime(path="/realtime/broadcast", authenticate=False) as sdk:
        assert (await sdk.request(first))["user_id"] == f"jwt:{user.pk}"


def test_identity_without_user_or_subject_is_an_app():
    assert Identity("key:a").user_key is None
    with pytest.raises(TypeError):
        send_to_user(Identity("key:a"), "Hi")

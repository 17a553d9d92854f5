"""Permissions of collections: rows, fields and filters, for changes and deletions."""

import pytest
from asgiref.sync import sync_to_async
from rest_framework import serializers

from django_cocobase_realtime import Collection
from django_cocobase_realtime.filters import Row
from django_cocobase_realtime.identity import Identity, display_name, is_active
from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.permissions import (
    AllowAny,
    DjangoModelPermissions,
    HasCredential,
    IsAdminUser,
    IsAuthenticated,
    IsStaff,
    Permission,
)
from django_cocobase_realtime.utils.project_code import ProjectCodeFailed
from tests.app.models import Author, Post

pytestmark = pytest.mark.django_db(transaction=True)


class OwnPosts:
    def visible_to(self, identity):
        return {"owner": identity.user_id}


class SubscribeForbidden:
    def can_subscribe(self, identity, filters):
        return False


class OnlyTitlesWithoutUser:
    def fields_for(self, identity):
        return ["title"] if identity.user_id is None else None


class RequiresStatusFilter:
    def can_subscribe(self, identity, filters):
        return "status" in filters


class InvalidFilter:
    def visible_to(self, identity):
        return {"nonsense": 1}


class AuthorSerializer(serializers.ModelSerializer):
    shout = serializers.SerializerMethodField()

    class Meta:
        model = Author
        fields = ["name", "shout"]

    def get_shout(self, author):
        if author.name == "bad":
            raise RuntimeError("no")
        return author.name.upper()


def posts(settings, permission=None, **options):
    if permission is not None:
        options["permission"] = f"{__name__}.{permission.__name__}"
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": {"model": "app.Post", **options}}}


async def test_only_own_rows_are_sent_including_deletions(realtime, user, api_key, settings):
    posts(settings, OwnPosts)
    async with realtime(user=user) as ada, realtime(token=api_key) as app:
        await ada.subscribe("posts")
        await app.subscribe("posts")
        unowned = await Post.objects.acreate(title="without owner")
        own = await Post.objects.acreate(title="own", owner=user)
        assert (await ada.receive("event"))["document"]["data"]["title"] == "own"
        await unowned.adelete()
        await own.adelete()
        event = await ada.receive("event")
        assert (event["event"], event["document"]["data"]["title"]) == ("deleted", "own")
        assert await ada.receive_nothing()
        assert (
            await app.receive_nothing()
        )  # an identity without a user does not see rows without an owner


async def test_client_filter_only_narrows_the_permission(realtime, user, settings):
    posts(settings, OwnPosts)
    async with realtime(user=user) as ada:
        await ada.subscribe("posts", filters={"owner": str(user.pk + 1)})
        await Post.objects.acreate(title="own", owner=user)
        assert await ada.receive_nothing()
        await ada.subscribe("posts", filters={"status": "published"})
        await Post.objects.acreate(title="draft", owner=user)
        await Post.objects.acreate(title="yes", owner=user, status="published")
        assert (await ada.receive("event"))["document"]["data"]["title"] == "yes"


async def test_forbidden_collection_is_answered_like_a_missing_one(realtime, api_key, settings):
    posts(settings, SubscribeForbidden)
    async with realtime(token=api_key) as app:
        forbidden = await app.request({"type": "subscribe", "collection": "posts"})
        missing = await app.request({"type": "subscribe", "collection": "nope"})
        assert forbidden["code"] == missing["code"] == "unknown_collection"
        assert forbidden["message"].replace("posts", "nope") == missing["message"]
        # an invalid filter does not reveal that the collection exists
        invalid = {"type": "subscribe", "collection": "posts", "filters": {"x": 1}}
        assert await app.request(invalid) == forbidden
        await Post.objects.acreate(title="x")
        assert await app.receive_nothing()


async def test_unreadable_fields_are_removed_from_data_changed_and_filters(
    realtime, api_key, user, settings
):
    posts(settings, OnlyTitlesWithoutUser, fields=["title", "body"], filters=["title", "body"])
    async with realtime(token=api_key) as guest, realtime(user=user) as ada:
        await guest.subscribe("posts")
        await ada.subscribe("posts")
        post = await Post.objects.acreate(title="t", body="secret")
        assert (await guest.receive("event"))["document"]["data"] == {"title": "t"}
        assert (await ada.receive("event"))["document"]["data"] == {"title": "t", "body": "secret"}
        post.body = "other"
        await post.asave()
        event = await guest.receive("event")
        assert (event["document"]["data"], event["changed"]) == ({"title": "t"}, [])
        filtered = {"type": "subscribe", "collection": "posts", "filters": {"body": "other"}}
        assert (await guest.request(filtered))["code"] == "invalid_filter"
        projected = {"type": "subscribe", "collection": "posts", "fields": ["body"]}
        assert (await guest.request(projected))["code"] == "bad_request"


async def test_can_subscribe_receives_the_filters(realtime, api_key, settings):
    posts(settings, RequiresStatusFilter)
    async with realtime(token=api_key) as app:
        reply = await app.request({"type": "subscribe", "collection": "posts"})
        assert reply["code"] == "unknown_collection"
        await app.subscribe("posts", filters={"status": "draft"})


async def test_visible_to_with_invalid_filter_refuses_the_subscription(realtime, api_key, settings):
    posts(settings, InvalidFilter)
    async with realtime(token=api_key) as app:
        reply = await app.request({"type": "subscribe", "collection": "posts", "id": 7})
        assert (reply["code"], reply["id"]) == ("internal_error", 7)
        await Post.objects.acreate(title="x")
        assert await app.receive_nothing()


async def test_project_field_separates_projects(realtime, transactional_db, settings):
    posts(settings, project_field="project")
    create_key = sync_to_async(ApiKey.objects.create_key)
    one = (await create_key("one", project="one"))[1]
    two = (await create_key("two", project="two"))[1]
    async with realtime(token=one) as first, realtime(token=two) as second:
        await first.subscribe("posts")
        await second.subscribe("posts", filters={"project": "one"})
        await Post.objects.acreate(title="x", project="one")
        assert (await first.receive("event"))["document"]["data"]["title"] == "x"
        assert await second.receive_nothing()


async def test_serializer_produces_the_document(realtime, api_key, settings):
    path = f"{__name__}.AuthorSerializer"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"authors": {"model": "app.Author", "serializer": path}}
    }
    async with realtime(token=api_key) as app:
        await app.subscribe("authors", filters={"name": "ada"})
        await app.subscribe("authors", subscription="shouts", fields=["shout"])
        author = await Author.objects.acreate(name="ada")
        frames = [await app.receive("event"), await app.receive("event")]
        data = {tuple(f["subscriptions"]): f["document"]["data"] for f in frames}
        assert data == {
            ("authors",): {"name": "ada", "shout": "ADA"},
            ("shouts",): {"shout": "ADA"},
        }
        author.name = "bad"
        await author.asave()  # the serializer raises: the save succeeds, the event has no data
        event = await app.receive("event")
        assert event["document"] == {"id": str(author.pk), "error": True}
        await author.adelete()
        assert (await app.receive("event"))["event"] == "deleted"
        reply = await app.request(
            {"type": "subscribe", "collection": "authors", "filters": {"password": "x"}}
        )
        assert reply["code"] == "invalid_filter"


@pytest.mark.parametrize(
    ("permission", "admitted"),
    [
        (Permission, "visitor key subject ada admin"),
        (AllowAny, "visitor key subject ada admin"),
        (HasCredential, "key subject ada admin"),
        (IsAuthenticated, "subject ada admin"),
        (IsAdminUser, "admin"),
        (IsStaff, "admin"),
    ],
)
def test_built_in_permissions_admit_their_identities(django_user_model, permission, admitted):
    identities = {
        "visitor": Identity("anonymous:", is_anonymous=True),
        "key": Identity("key:a"),
        "subject": Identity("jwt:default:x", subject="x"),
        "ada": Identity("jwt:default:1", user=django_user_model(), user_id=1),
        "admin": Identity("jwt:default:2", user=django_user_model(is_staff=True), user_id=2),
    }
    allowed = [name for name, i in identities.items() if permission().can_subscribe(i, {})]
    assert allowed == admitted.split()


class MinimalUser:
    """A user model with no more than Django requires: a primary key, no field of the admin."""

    pk = 3
    is_authenticated = True

    def __str__(self):
        return "minimal"


def test_user_model_without_the_fields_of_the_admin_is_refused():
    minimal = Identity("jwt:default:3", user=MinimalUser(), user_id=3)
    assert IsAuthenticated().can_subscribe(minimal, {})
    assert not IsStaff().can_subscribe(minimal, {})
    assert not DjangoModelPermissions().can_subscribe(minimal, {})
    # as Django's backends have it, who cannot be inactive is active
    assert is_active(minimal.user)
    assert display_name(minimal.user) == "minimal"


def test_inactive_staff_is_refused(django_user_model):
    user = django_user_model(is_staff=True, is_active=False)
    assert not IsStaff().can_subscribe(Identity("jwt:default:4", user=user, user_id=4), {})


@pytest.mark.parametrize(("result", "visible"), [(True, True), (False, False), (None, False)])
def test_visible_to_may_return_bool_or_none(result, visible):
    class Posts(Collection):
        model = Post

        def visible_to(self, identity):
            return result

    grant = Posts().grant(Identity("key:a"), {})
    assert grant.decision.visible.matches(Row({"title": "x"}, grant.schema)) is visible


def test_visible_to_with_invalid_result_raises():
    class Posts(Collection):
        model = Post

        def visible_to(self, identity):
            return 5

    with pytest.raises(ProjectCodeFailed, match="visible_to") as failed:
        Posts().grant(Identity("key:a"), {})
    assert isinstance(failed.value.__cause__, TypeError)

"""Collections whose filters lead to related rows."""

import msgspec
import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured

from django_cocobase_realtime.conf import conf
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.delivery.query import (
    SubscriptionRefused,
    authorize_query,
    rebuild_query,
    serialize_request,
)
from django_cocobase_realtime.filters import KeySet, Kind, Row, keys_of
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.permissions import Permission
from django_cocobase_realtime.utils.project_code import ProjectCodeFailed
from django_cocobase_realtime.wire.commands import Subscribe
from tests.app.models import Author, Post

pytestmark = pytest.mark.django_db
USER = Identity("user:1")


class OfAda(Permission):
    visible = {"author.name": "ada"}

    def visible_to(self, identity):
        return self.visible


class AuthorHidden(Permission):
    def fields_for(self, identity):
        return ["title", "status"]


class OnlyTitle(Permission):
    def can_subscribe(self, identity, filters):
        return filters.only("title") == "t"


@pytest.fixture
def declare(settings):
    def declare(**options):
        collection = {"model": "app.Post", "filters": ["title", "author.name"], **options}
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": collection}}
        return registry.get("posts")

    return declare


class Keeper:
    def __init__(self):
        self.queries = []

    def __call__(self, field, queryset):
        self.queries.append(str(queryset.query))
        keys = keys_of(Kind.INTEGER, queryset.values_list("pk", flat=True))
        return KeySet(self.queries[-1], Kind.INTEGER, keys)


def subscribe(**options):
    return msgspec.convert({"type": "subscribe", "collection": "posts", **options}, Subscribe)


def authorize(collection, filters):
    """Return the query as a subscription gets it, and how many queries its keys needed."""
    keeper = Keeper()
    grant = collection.grant(USER, filters, keeper)
    if grant is None:
        return None, len(keeper.queries)
    return authorize_query(conf.limits, subscribe(filters=filters), grant, USER), len(
        keeper.queries
    )


def titles(query):
    collection = registry.get("posts")
    images = [collection.codec.image(r) for r in Post.objects.values(*collection.codec.attnames)]
    return {i["title"] for i in images if query.filter.matches(Row(i, collection.schema))}


@pytest.fixture
def posts():
    for name in ("ada", "bob"):
        Post.objects.create(title=name, author=Author.objects.create(name=name))
    Post.objects.create(title="none")


def test_client_filters_by_a_declared_path(posts, declare, django_assert_num_queries):
    with django_assert_num_queries(1):
        query, count = authorize(declare(), {"author.name": "ada"})
    assert count == 1  # when the permission is evaluated, and not in the event loop
    with django_assert_num_queries(1):
        assert titles(query) == {"ada"}
    query, _ = authorize(declare(), {"$not": {"author.name_contains": "D"}})
    assert titles(query) == {"bob", "none"}


def test_subscription_that_is_asked_again_has_the_same_filter(posts, declare):
    declare()
    request = serialize_request(subscribe(filters={"author.name": "ada"}))
    assert titles(rebuild_query(conf.limits, request, USER, lambda collection: Keeper())) == {"ada"}


@pytest.mark.parametrize(
    "filters",
    [{"author.id": 1}, {"author.name": None}, {"owner.username": "a"}, {"author.name": [1]}],
)
def test_other_paths_and_values_are_refused_without_a_query(declare, filters):
    keeper = Keeper()
    grant = declare().grant(USER, filters, keeper)
    with pytest.raises(SubscriptionRefused) as refusal:
        authorize_query(conf.limits, subscribe(filters=filters), grant, USER)
    assert refusal.value.code == "invalid_filter"
    assert keeper.queries == []


def test_path_of_a_field_that_may_not_be_read_is_refused(declare):
    collection = declare(permission="tests.declarations.test_related_filters.AuthorHidden")
    with pytest.raises(SubscriptionRefused, match="allowed are"):
        authorize(collection, {"author.name": "ada"})


def test_client_that_may_not_subscribe_causes_no_query(declare):
    collection = declare(permission="tests.declarations.test_related_filters.OnlyTitle")
    assert authorize(collection, {"author.name": "ada"}) == (None, 0)
    query, count = authorize(collection, {"author.name": "ada", "title": "t"})
    assert query is not None
    assert count == 1


def test_path_in_visible_to(posts, declare):
    collection = declare(permission="tests.declarations.test_related_filters.OfAda")
    query, _ = authorize(collection, {})
    assert titles(query) == {"ada"}


def test_mistake_in_a_path_in_visible_to(declare, monkeypatch):
    collection = declare(permission="tests.declarations.test_related_filters.OfAda")
    monkeypatch.setattr(OfAda, "visible", {"author.nme": "ada"})
    with pytest.raises(ProjectCodeFailed) as failure:
        collection.grant(USER, {}, Keeper())
    assert isinstance(failure.value.__cause__, ImproperlyConfigured)
    assert "'nme' is neither a field of app.Author" in str(failure.value.__cause__)


def test_path_whose_field_is_not_stored_is_refused_with_the_line_to_add(declare, monkeypatch):
    collection = declare(
        fields=["title"],
        filters=["title"],
        permission_fields=["status"],
        permission="tests.declarations.test_related_filters.OfAda",
    )
    with pytest.raises(ProjectCodeFailed) as failure:
        collection.grant(USER, {}, Keeper())
    assert "permission_fields = ['status', 'author']" in str(failure.value.__cause__)


def test_secret_of_a_related_row_cannot_be_filtered_by(declare):
    collection = declare(filters=["author.password"])
    with pytest.raises(SubscriptionRefused, match="allowed are"):
        authorize(collection, {"author.password": "hunter2"})
    collection = declare(filters=["author.password"], not_secret=["author.password"])
    assert authorize(collection, {"author.password": "hunter2"})[1] == 1


def messages():
    return [(m.id, m.msg, m.hint) for m in run_checks() if m.id.startswith("cocobase_realtime.E")]


@pytest.mark.parametrize(
    ("path", "id", "message"),
    [
        ("author.nme", "E006", "'filters' names 'author.nme': 'nme' is neither a field of"),
        ("tags.name", "E006", "'tags.name', which leads to several rows"),
        ("comment.text", "E006", "'comment.text', which leads to several rows"),
        ("nme.text", "E006", "is not a field of app.Post"),
        ("author.post.title", "E006", "'author.post.title', which leads to several rows"),
        ("author.password", "E007", "'author.password', which looks secret"),
    ],
)
def test_path_that_clients_cannot_use(declare, path, id, message):
    declare(filters=[path])
    ((check_id, text, hint),) = messages()
    assert check_id.endswith(id)
    assert message in text
    assert hint


def test_paths_to_one_row_pass_the_checks(declare):
    declare(filters=["title", "author.name", "author.id", "owner.username", "meta.a"])
    assert messages() == []

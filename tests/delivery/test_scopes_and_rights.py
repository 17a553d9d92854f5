"""Two hashes of a query: whether rights are the same, and the scope that clients hold."""

import time
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from django_cocobase_realtime.conf import conf
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.delivery import query as queries
from django_cocobase_realtime.delivery.query import (
    allow_the_same,
    current_scope,
    rebuild_query,
    serialize_request,
)
from django_cocobase_realtime.filters import KeySet, Kind
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.permissions import Permission
from django_cocobase_realtime.wire.commands import Subscribe
from tests.app.models import Author, Post

pytestmark = pytest.mark.django_db
USER = Identity("user:1")


class OfAuthors(Permission):
    """The posts of some authors, as a queryset."""

    lookups = {"name": "a"}
    negated = False

    def visible_to(self, identity):
        visible = {"author__in": Author.objects.filter(**self.lookups)}
        return {"$not": visible} if self.negated else visible


class Checked(OfAuthors):
    def has_object_permission(self, identity, post):
        return True


class CheckedOtherwise(Checked):
    pass


@pytest.fixture
def posts(settings):
    def declare(permission=OfAuthors):
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": {"posts": {"model": "app.Post", "permission": permission}}
        }

    declare()
    queries._warned.clear()
    return declare


class Keeper:
    """Makes one key set for all equal queries, as a server does."""

    def __init__(self):
        self.sets = {}

    def __call__(self, collection):
        return self.make

    def make(self, field, queryset):
        assert field == "author"
        name = str(queryset.query)
        return self.sets.setdefault(name, KeySet(name, Kind.INTEGER, ["1"]))


def ask(keeper, identity=USER, **request):
    command = msgspec.convert({"type": "subscribe", "collection": "posts", **request}, Subscribe)
    return rebuild_query(conf.limits, serialize_request(command), identity, keeper)


def test_rights_do_not_depend_on_keys_and_scope_does(posts):
    keeper = Keeper()
    old = ask(keeper)
    (key_set,) = old.key_sets()
    key_set.add("2")
    new = ask(keeper)
    assert new.key_sets() == (key_set,)
    assert allow_the_same(old, new, "posts")
    assert old.scope != new.scope
    assert current_scope(old) == new.scope == current_scope(new)
    key_set.discard("1")
    assert current_scope(new) not in (old.scope, new.scope)
    key_set.replace(["1"])
    assert current_scope(new) == old.scope


def test_scope_is_the_same_in_another_process_with_the_same_keys(posts):
    one, other = ask(Keeper()), ask(Keeper())
    assert one.scope == other.scope
    assert not allow_the_same(one, other, "posts")  # nothing changes the keys of the old set


def test_scope_does_not_contain_the_query(posts, monkeypatch):
    one = ask(Keeper())
    monkeypatch.setattr(OfAuthors, "lookups", {"name": "b"})
    assert ask(Keeper()).scope == one.scope


@pytest.mark.parametrize(
    "request_options",
    [{"fields": ["title"]}, {"events": ["created"]}, {"filters": {"views": 1}}],
)
def test_scope_depends_on_the_request(posts, request_options):
    keeper = Keeper()
    assert ask(keeper).scope != ask(keeper, **request_options).scope


def test_scope_depends_on_the_user_and_the_row_permission(posts):
    keeper = Keeper()
    old = ask(keeper)
    assert ask(keeper, Identity("user:2", subject="2")).scope != old.scope
    for permission in (Checked, CheckedOtherwise):
        posts(permission)
        new = ask(keeper)
        assert new.scope != old.scope
        assert not allow_the_same(old, new, "posts")
        old = new


def test_sets_of_an_inverted_row_permission_belong_to_the_query(posts):
    posts(~Checked)
    keeper = Keeper()
    query = ask(keeper)
    assert len(query.key_sets()) == 1
    query.key_sets()[0].add("2")
    assert current_scope(query) != query.scope


def test_another_query_of_related_rows_is_another_right(posts, monkeypatch):
    keeper = Keeper()
    old = ask(keeper)
    monkeypatch.setattr(OfAuthors, "lookups", {"name": "b"})
    assert not allow_the_same(old, ask(keeper), "posts")


class Recent(Permission):
    lookups = {}

    def visible_to(self, identity):
        since = timezone.now() - timedelta(days=1)
        recent = Post.objects.filter(created_at__gt=since, **self.lookups)
        return {"author__in": Author.objects.filter(post__in=recent)}


def test_time_that_passes_in_a_query_of_related_rows_is_no_other_right(posts, monkeypatch):
    posts(Recent)
    keeper = Keeper()
    old = ask(keeper)
    time.sleep(0.01)
    new = ask(keeper)
    assert old.key_sets() != new.key_sets()
    assert allow_the_same(old, new, "posts")
    monkeypatch.setattr(Recent, "lookups", {"views": 5})
    assert not allow_the_same(old, ask(keeper), "posts")


def test_another_time_in_a_query_of_related_rows_is_another_right(posts, monkeypatch):
    posts(Recent)
    keeper = Keeper()
    old = ask(keeper)
    monkeypatch.setattr(timezone, "now", lambda: datetime.now(UTC) + timedelta(minutes=5))
    assert not allow_the_same(old, ask(keeper), "posts")


def test_queryset_without_key_sets_is_refused_with_what_to_write(posts):
    with pytest.raises(ImproperlyConfigured, match=r"'author__in'.*list\(queryset\)"):
        registry.get("posts").parse_trusted_filter({"author__in": Author.objects.all()})

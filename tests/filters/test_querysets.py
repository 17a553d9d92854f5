"""Querysets as values in trusted filters: the same rows as those of Django's ORM."""

import pytest
from django.db.models import Q

from django_cocobase_realtime.declarations.serialization import RowCodec
from django_cocobase_realtime.filters import InvalidFilter, KeySet, Row, keys_of, parse
from django_cocobase_realtime.filters.orm import field_spec, to_q
from tests.app.models import Author, Everything, Post

CODEC = RowCodec(Post)
SCHEMA = {name: field_spec(field) for name, field in CODEC.fields.items()}

pytestmark = pytest.mark.django_db


def make_key_set(field, queryset):
    kind = SCHEMA[field].compares_as
    if queryset._fields is None:
        queryset = queryset.values_list("pk", flat=True)
    return KeySet("a query", kind, keys_of(kind, queryset))


def parse_trusted(filters):
    return parse(filters, SCHEMA, trusted=True, key_set=make_key_set)


@pytest.fixture
def posts():
    """Posts of two authors and of none, and a text that is the name of one of them."""
    ada, bob = (Author.objects.create(name=name) for name in ("ada", "bob"))
    for author in (ada, bob, None):
        for title in ("ada", "other"):
            Post.objects.create(author=author, title=title)


def ada():
    return Author.objects.filter(name="ada")


@pytest.mark.parametrize(
    ("make_filter", "make_q"),
    [
        (lambda: {"author__in": ada()}, lambda: Q(author__in=ada())),
        (lambda: {"author": {"in": ada()}}, lambda: Q(author__in=ada())),
        (
            lambda: {"author_notin": ada()},
            lambda: Q(author__isnull=False) & ~Q(author__in=ada()),
        ),
        (
            lambda: {"$not": {"author__in": ada()}},
            lambda: Q(author__isnull=True) | ~Q(author__in=ada()),
        ),
        (
            lambda: {"$not": {"author": {"notin": ada()}}},
            lambda: Q(author__isnull=True) | Q(author__in=ada()),
        ),
        (
            lambda: {"$or": [{"author__in": ada()}, {"title": "ada"}]},
            lambda: Q(author__in=ada()) | Q(title="ada"),
        ),
        (
            lambda: {"author__in": ada(), "author_isnull": False, "title_contains": "A"},
            lambda: Q(author__in=ada(), title="ada"),
        ),
        (
            lambda: {"title__in": ada().values_list("name", flat=True)},
            lambda: Q(title__in=["ada"]),
        ),
        # NULL is no key
        (
            lambda: {"author__in": Post.objects.values_list("author", flat=True)},
            lambda: Q(author__isnull=False),
        ),
        (
            lambda: {"$not": {"author__in": Post.objects.values_list("author", flat=True)}},
            lambda: Q(author__isnull=True),
        ),
        (lambda: {"author__in": Author.objects.none()}, lambda: Q(pk__in=[])),
        (lambda: {"author__notin": Author.objects.none()}, lambda: Q(author__isnull=False)),
    ],
)
def test_queryset_as_value(posts, make_filter, make_q):
    filter = parse_trusted(make_filter())
    expected = set(Post.objects.filter(make_q()).values_list("pk", flat=True))
    by_database = Post.objects.filter(to_q(filter, Post, "default"))
    assert set(by_database.values_list("pk", flat=True)) == expected
    images = [CODEC.image(row) for row in Post.objects.values(*CODEC.attnames)]
    assert {int(i["id"]) for i in images if filter.matches(Row(i, SCHEMA))} == expected


@pytest.mark.parametrize(
    ("make_filter", "message"),
    [
        (lambda: {"author": Author.objects.all()}, "only be compared by in or notin"),
        (lambda: {"author_gt": Author.objects.all()}, "only be compared by in or notin"),
        (lambda: {"meta.a__in": Author.objects.all()}, "JSON"),
    ],
)
def test_queryset_that_cannot_be_compared(make_filter, message):
    with pytest.raises(InvalidFilter, match=message):
        parse_trusted(make_filter())


def test_querysets_are_refused_if_they_are_not_followed():
    with pytest.raises(InvalidFilter, match=r"'author__in'.*list\(queryset\)"):
        parse({"author__in": Author.objects.all()}, SCHEMA, trusted=True)


def test_clients_cannot_send_a_queryset():
    with pytest.raises(InvalidFilter, match="must be a list"):
        parse({"author__in": Author.objects.all()}, SCHEMA, key_set=make_key_set)


@pytest.mark.parametrize("name", ["big", "integer", "decimal", "float", "uuid", "moment", "date"])
def test_keys_of_values_that_the_database_returns(name):
    values = {"uuid": "a" * 32, "moment": "2026-01-02T10:00Z", "date": "2026-01-02"}
    Everything.objects.create(**{name: values.get(name, 1)})
    row = Everything.objects.get()
    codec = RowCodec(Everything)
    schema = {n: field_spec(field) for n, field in codec.fields.items()}
    image = codec.image(Everything.objects.values(*codec.attnames).get())
    kind = schema[name].compares_as
    assert keys_of(kind, [getattr(row, name), None]) == [Row(image, schema).key((name,))]

"""Orders in requests, and the SQL that they become."""

import json

import pytest
from django.db import connection

from django_cocobase_realtime.filters import FieldSpec, Kind, orm_order
from django_cocobase_realtime.filters.order import BY_KEY, InvalidOrder, parse_order
from django_cocobase_realtime.filters.orm_order import ordering, steps_after
from tests.app.models import Everything, Item, LongKey, Post, Seat
from tests.support.as_of import by

POSTGRES = connection.vendor == "postgresql"
SCHEMA = {
    name: FieldSpec(name, kind)
    for name, kind in {
        "priority": Kind.INTEGER,
        "title": Kind.TEXT,
        "secret": Kind.TEXT,
        "meta": Kind.JSON,
        "a": Kind.DATE,
        "b": Kind.DATE,
        "c": Kind.DATE,
        "d": Kind.DATE,
    }.items()
}
ALLOWED = frozenset(SCHEMA) - {"secret"}


@pytest.mark.parametrize(
    ("order", "names"),
    [
        (None, ()),
        ("title", ("title",)),
        ("-priority, title", ("-priority", "title")),
        (["-priority", "title"], ("-priority", "title")),
        ([], ()),
    ],
)
def test_order_is_a_list_or_a_text_with_commas(order, names):
    assert parse_order(order, SCHEMA, ALLOWED) == by(*names)
    assert str(by(*names)) == ",".join(names)


@pytest.mark.parametrize(
    "order",
    [
        *("", "secret", "meta", "meta.a", "--title", "?", "title__lower", "pk", "title,", ","),
        *("title,-title", "a,b,c,d,title,priority", ["title,a"], ["title", ""]),
    ],
)
def test_order_that_is_not_allowed_is_refused(order):
    with pytest.raises(InvalidOrder) as raised:
        parse_order(order, SCHEMA, ALLOWED)
    assert "secret'" not in str(raised.value).partition("use some of")[2]


def conditions(model, order, values):
    """Return the conditions of a page as SQL."""
    steps = steps_after(model, order, "default", values)
    queries = [str(model.objects.filter(step).order_by().query) for step in steps]
    return [query.partition(" WHERE ")[2].replace('"', "").strip("()") for query in queries]


@pytest.mark.django_db
def test_steps_ask_for_one_value_of_some_columns_and_a_range_of_another():
    assert conditions(Post, by("-views", "author"), [3, "7", "10"]) == [
        "app_post.views = 3 AND app_post.author_id = 7 AND app_post.id > 10",
        "app_post.views = 3 AND app_post.author_id > 7",
        "app_post.views < 3",
    ]
    assert conditions(Post, by("author", "-owner"), [None, "5", "10"]) == [
        "app_post.author_id IS NULL AND app_post.owner_id = 5 AND app_post.id > 10",
        "app_post.author_id IS NULL AND app_post.owner_id < 5",
        "app_post.author_id IS NULL AND app_post.owner_id IS NULL",
        "app_post.author_id IS NOT NULL",
    ]
    assert conditions(Post, by("-author"), [None, "10"]) == [
        "app_post.author_id IS NULL AND app_post.id > 10"
    ]
    assert conditions(Seat, by("-number"), ["1", "a"]) == [
        "app_seat.number = 1 AND app_seat.event > a",
        "app_seat.number < 1",
    ]
    # a generated column may have nulls, whatever its field says
    assert conditions(Everything, by("-double"), [4, "10"]) == [
        "app_everything.double = 4 AND app_everything.id > 10",
        "app_everything.double < 4",
        "app_everything.double IS NULL",
    ]
    # nothing is equal in a field with unique values, nor in the key
    assert conditions(Item, by("-name", "size"), ["x", 1, "7"]) == ["app_item.name < x"]
    assert conditions(Item, BY_KEY, ["7"]) == ["app_item.id > 7"]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("names", "values"),
    [
        (["views"], ["3"]),
        (["views"], [3, "7", "10"]),
        (["views"], ["x", "7"]),
        (["views"], [[], "7"]),
        (["created_at"], ["yesterday", "7"]),
        (["rating"], ["sNaN", "7"]),
        ([], ["x"]),
    ],
)
def test_values_of_another_order_are_refused(names, values):
    with pytest.raises(InvalidOrder):
        steps_after(Post, by(*names), "default", values)


@pytest.mark.django_db
@pytest.mark.skipif(not POSTGRES, reason="PostgreSQL")
def test_text_in_the_collation_of_a_language_is_sorted_and_compared_by_code_points(monkeypatch):
    monkeypatch.setattr(orm_order, "_read_properties", lambda *args: {"path": (False, False)})
    (by_key,) = ordering(LongKey, BY_KEY, "default")
    assert 'COLLATE "C"' in str(LongKey.objects.order_by(by_key).query)
    (condition,) = conditions(LongKey, BY_KEY, ["x"])
    assert "COLLATE C > x" in condition


@pytest.mark.parametrize(
    ("collation", "default", "expected"),
    [
        ({"provider": "d"}, {"locprovider": "c", "collate": "en_US.UTF-8"}, False),
        ({"provider": "d"}, {"locprovider": "c", "collate": "C"}, True),
        ({"provider": "d"}, {"locprovider": "i", "collate": "C", "locale": "C"}, False),
        ({"provider": "d"}, {"locprovider": "b", "collate": "en_US", "locale": "C.UTF-8"}, True),
        ({"provider": "c", "collate": "en_US"}, {"locprovider": "c", "collate": "C"}, False),
        ({"provider": "c", "collate": "C.utf8"}, {"locprovider": "i", "locale": "und"}, True),
        ({"provider": "b", "locale": "PG_UNICODE_FAST"}, {}, True),
        ({"provider": "i", "locale": "und"}, {"locprovider": "b", "locale": "C"}, False),
        # of PostgreSQL 14, which has no other provider for a database
        ({"provider": "d"}, {"collate": "de_DE.utf8"}, False),
        ({"provider": "d"}, {"collate": "POSIX"}, True),
    ],
)
def test_collations_that_compare_by_code_points(collation, default, expected):
    rows = [
        json.dumps({f"{prefix}{name}": value for name, value in row.items()})
        for prefix, row in (("coll", collation), ("dat", default))
    ]
    assert orm_order._is_by_code_points(*rows) is expected

"""Filters by equality: coerced values, rejected values, and the index of filters."""

import uuid
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.filters import (
    Filter,
    FilterIndex,
    FilterLimits,
    InvalidFilter,
    Row,
    parse,
)
from django_cocobase_realtime.filters.orm import field_spec
from tests.app.models import Comment, Everything, Post, UuidThing

SCHEMA = {f.name: field_spec(f) for f in Everything._meta.concrete_fields}
POSTS = {f.name: field_spec(f) for f in Post._meta.concrete_fields}


def matches(filters, image, schema=SCHEMA, **options):
    return parse(filters, schema, **options).matches(Row(image, schema))


@pytest.mark.parametrize(
    ("name", "value", "stored"),
    [
        ("integer", 18, 18),
        ("integer", "18", 18),
        ("integer", 18.0, 18),
        ("big", str(2**60), str(2**60)),
        ("boolean", True, True),
        ("boolean", "true", True),
        ("boolean", "0", False),
        ("boolean", 1, True),
        ("decimal", "1.5", "1.5000"),
        ("decimal", 1.5, "1.5000"),
        ("float", "2.5", 2.5),
        ("float", 2, 2.0),
        ("char", "a", "a"),
        ("text", 5, "5"),
        ("date", "2026-01-02", "2026-01-02"),
        ("moment", "2026-01-02T12:00:00+02:00", "2026-01-02T10:00:00+00:00"),
        (
            "moment",
            "2026-01-02T11:00:00",
            "2026-01-02T10:00:00+00:00",
        ),  # local time
        ("moment", "2026-01-02T10:00:00Z", "2026-01-02T10:00:00+00:00"),
        ("time", "10:00", "10:00:00"),
        ("uuid", str(uuid.UUID(int=7)).upper(), str(uuid.UUID(int=7))),
        ("uuid", uuid.UUID(int=7).hex, str(uuid.UUID(int=7))),
        ("id", 7, "7"),
        ("id", "7", "7"),
        ("ip", "::1", "::1"),
        ("double", 8, 8),
    ],
)
def test_value_is_coerced_by_the_type_of_the_field(name, value, stored):
    assert matches({name: value}, {name: stored})
    assert not matches({name: value}, {name: None})
    assert not matches({name: value}, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("integer", "x"),
        ("integer", True),
        ("integer", 1.5),
        ("integer", "1e5"),
        ("integer", "9" * 50),
        ("integer", [1]),
        ("integer", {"above": 1}),
        ("integer", {}),
        ("integer", {"gte": None}),
        ("boolean", "yes"),
        ("boolean", 2),
        ("decimal", "1e999999999"),
        ("decimal", "NaN"),
        ("decimal", True),
        ("float", "nan"),
        ("float", "x" * 100),
        ("date", "2026-13-01"),
        ("date", 5),
        ("moment", "yesterday"),
        ("moment", "0001-01-01T00:00:00+14:00"),
        ("time", "25:00"),
        ("uuid", "7"),
        ("uuid", 7),
        ("text", ["a"]),
        ("text", True),
        ("json", [1]),
        ("json.a", {"eq": {"b": 1}}),
        ("binary", "AP8="),
        ("id", "x"),
        ("integer", None),
        ("password", "x"),
        ("integer__above", 1),
        ("integer__gte__lte", 1),
        ("char.length", 1),
        ("json.", 1),
        ("json..a", 1),
        ("_connector", "OR"),
        ("", 1),
    ],
)
def test_invalid_value_is_rejected_with_the_name(name, value):
    with pytest.raises(InvalidFilter, match=r"^.*\.$") as raised:
        parse({name: value}, SCHEMA)
    assert repr(name) in str(raised.value) or repr(str(name)) in str(raised.value)


def test_rejected_field_names_only_allowed_fields():
    with pytest.raises(InvalidFilter) as raised:
        parse({"title": "x"}, POSTS, allowed={"status"})
    assert "['status']" in str(raised.value)


def test_number_of_conditions_is_limited():
    with pytest.raises(InvalidFilter, match="2 conditions"):
        parse({"title": "a", "body": "b", "status": "c"}, POSTS, limits=FilterLimits(clauses=2))


def test_foreign_key_is_compared_by_id():
    schema = {f.name: field_spec(f) for f in Comment._meta.concrete_fields}
    assert matches({"post": "7"}, {"post": "7"}, schema)
    assert matches({"post": 7}, {"post": "7"}, schema)
    things = {f.name: field_spec(f) for f in UuidThing._meta.concrete_fields}
    id = uuid.uuid4()
    assert matches({"id": id.hex}, {"id": str(id)}, things)


def test_trusted_filter_accepts_model_values():
    assert matches({"owner": 7}, {"owner": "7"}, POSTS, trusted=True)
    assert matches({"owner": Post(pk=7)}, {"owner": "7"}, POSTS, trusted=True)
    assert matches({"rating": Decimal("1.5")}, {"rating": "1.50"}, POSTS, trusted=True)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert matches({"created_at": at}, {"created_at": at.isoformat()}, POSTS, trusted=True)
    # an identity without a user does not match rows without an owner
    assert not matches({"owner": None}, {"owner": None}, POSTS, trusted=True)
    assert not matches({"owner": None}, {"owner": "7"}, POSTS, trusted=True)


def test_and_of_filters_matches_if_both_match():
    one, two = parse({"status": "a"}, POSTS), parse({"views": 1}, POSTS)
    row = Row({"status": "a", "views": 1}, POSTS)
    assert (one & two).matches(row)
    assert not (one & parse({"status": "b"}, POSTS)).matches(row)
    assert not (one & Filter.nothing()).matches(row)
    assert (one & Filter.everything()).matches(row)


def test_value_shared_by_many_filters_does_not_add_candidates():
    index = FilterIndex()
    for n in range(1000):
        filters = {"status_in": [f"s{n}", f"t{n}", "never"], "title": "common title"}
        index.add(n, parse(filters, POSTS))
    row = Row({"status": "s7", "title": "common title"}, POSTS)
    assert index.matching(row) == [7]
    assert len(index.candidates(row)) < 20


values = st.dictionaries(st.sampled_from(["status", "title", "views"]), st.sampled_from("0123"))


@given(st.lists(values), values, st.sets(st.integers(0, 20)))
def test_index_finds_exactly_the_matching_filters(filters, image, discarded):
    index = FilterIndex()
    parsed = {n: parse(filter, POSTS) for n, filter in enumerate(filters)}
    for n, filter in parsed.items():
        index.add(n, filter)
    for n in discarded:
        for filter in parsed.values():  # other filters than its own are ignored
            index.discard(n, filter)
    remaining = {n: filter for n, filter in parsed.items() if n not in discarded}
    row = Row(image, POSTS)
    matching = list(index.matching(row))
    assert len(matching) == len(set(matching))
    assert {n for n, filter in remaining.items() if filter.matches(row)} == set(matching)
    assert len(index) == len(remaining)


def test_event_checks_few_filters_of_many():
    index = FilterIndex()
    filters = [parse({"status": "published", "owner": n}, POSTS) for n in range(10_000)]
    for n, filter in enumerate(filters):
        index.add(n, filter)
    index.add("all", Filter.everything())
    index.add("none", Filter.nothing())
    row = Row({"status": "published", "owner": "77"}, POSTS)
    assert set(index.matching(row)) == {"all", 77}
    assert len(list(index.candidates(row))) <= 3
    for n, filter in enumerate(filters):
        index.discard(n, filter)
    assert list(index.matching(row)) == ["all"]
    assert index._buckets == {}

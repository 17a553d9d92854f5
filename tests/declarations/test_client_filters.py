"""The filters that `can_subscribe` receives: `only`, and the form in which the client sent them."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime import Collection
from django_cocobase_realtime.filters import (
    ClientFilters,
    FieldSpec,
    InvalidFilter,
    Kind,
    Row,
    parse,
)
from django_cocobase_realtime.identity import Identity
from tests.app.models import Comment, Post
from tests.support.blocks import ROOT, code_blocks

SCHEMA = {
    "ticket": FieldSpec("ticket", Kind.INTEGER),
    "owner": FieldSpec("owner", Kind.KEY, key=Kind.INTEGER),
    "status": FieldSpec("status", Kind.TEXT),
    "meta": FieldSpec("meta", Kind.JSON),
    "uuid": FieldSpec("uuid", Kind.UUID),
    "at": FieldSpec("at", Kind.DATETIME),
    "price": FieldSpec("price", Kind.DECIMAL),
}


def only(filters, field="ticket"):
    return ClientFilters(filters, SCHEMA, {"owner_id": "owner"}).only(field)


@pytest.mark.parametrize(
    "filters",
    [
        {"ticket": 1},
        {"ticket": "1"},
        {"ticket": {"eq": 1}},
        {"ticket__eq": 1},
        {"ticket_in": [1]},
        {"ticket": {"in": ["1", 1]}},
        {"ticket__in": "1"},
        {"ticket": 1, "status": "open"},
        {"ticket": 1, "ticket__gt": 0},
        {"ticket": {"in": [1, 2], "eq": 1}},
        {"ticket__in": [1, 2], "$and": [{"ticket__in": [1, 3]}]},
        {"$and": [{"status": "open"}, {"$and": [{"ticket": 1}]}]},
        {"$or": [{"ticket": 1}]},
        {"$or": [{"ticket": 1}, {"ticket": "1"}]},
        {"[or]ticket": 1},
        {"$not": {"$not": {"ticket": 1}}},
    ],
    ids=json.dumps,
)
def test_only_value_is_found_in_each_form(filters):
    assert only(filters) == 1


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"status": "open"},
        {"ticket": {"in": [1, 2]}},
        {"ticket": {"in": []}},
        {"ticket__gte": 1, "ticket__lte": 1},
        {"ticket": {"ne": 1}},
        {"ticket_notin": [1]},
        {"$not": {"ticket": 1}},
        {"$or": [{"ticket": 1}, {"ticket": 2}]},
        {"$or": [{"ticket": 1}, {"status": "open"}]},
        {"$or": [{"ticket": 1}, {"ticket": 1, "status": "open"}, {}]},
        {"[or]ticket": 1, "[or]status": "open"},
        {"ticket": 1, "ticket__eq": 2},
        {"ticket__or__owner": 1},
        {"ticket": "nonsense"},
        {"ticket": 1, "nonsense": 2},
        {"ticket": None},
        {"$nonsense": []},
        {"ticket": {}},
    ],
    ids=json.dumps,
)
def test_no_value_if_others_can_match_or_filter_is_invalid(filters):
    assert only(filters) is None


def test_value_has_the_type_of_the_field():
    identifier = "0d6bcb66-6a0a-4dd7-9b19-23a7bb0a67f3"
    assert only({"uuid": identifier.upper()}, "uuid") == UUID(identifier)
    at = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert only({"at": "2026-01-31T13:00:00+01:00"}, "at") == at
    assert only({"price": "1.50"}, "price") == Decimal("1.5")
    assert only({"owner": "7"}, "owner") == 7
    assert only({"owner": "7"}, "owner_id") == 7
    assert only({"meta.room": "a"}, "meta.room") == "a"
    assert only({"meta.room": True}, "meta.room") is True
    assert only({"meta.room": "a"}, "meta.other") is None


def test_unknown_field_is_a_mistake_of_the_permission():
    with pytest.raises(InvalidFilter, match="tikcet"):
        only({"ticket": 1}, "tikcet")


def test_dictionary_has_the_form_that_the_client_sent():
    sent = {"ticket": {"in": [1, 2]}, "$not": {"status": "open"}}
    filters = ClientFilters(sent, SCHEMA)
    assert filters == sent
    assert json.loads(json.dumps(filters)) == sent
    assert "ticket" in filters
    filters["ticket"] = 1  # does not change what the client asked for
    assert sent["ticket"] == {"in": [1, 2]}
    assert filters.only("ticket") is None


leaf = st.one_of(
    st.tuples(st.just("ticket"), st.sampled_from([1, 2, {"in": [1]}, {"in": [1, 2]}, {"gt": 1}])),
    st.tuples(st.just("ticket__in"), st.sampled_from([[1], [2, 3], [1, 3]])),
    st.tuples(st.just("ticket__ne"), st.sampled_from([1, 2])),
    st.tuples(st.just("[or]ticket"), st.sampled_from([1, 2])),
    st.tuples(st.sampled_from(["status", "[or]status"]), st.sampled_from(["a", "b"])),
    st.tuples(st.just("ticket__or__owner"), st.sampled_from([1, 2])),
    st.tuples(st.just("ticket__isnull"), st.booleans()),
)
trees = st.recursive(
    st.lists(leaf, max_size=3).map(dict),
    lambda inner: st.builds(
        lambda base, key, parts: {**base, key: parts[0] if key == "$not" else parts},
        inner,
        st.sampled_from(["$or", "$and", "$not"]),
        st.lists(inner, min_size=1, max_size=3),
    ),
    max_leaves=6,
)


@given(trees)
def test_every_matching_row_has_the_only_value(filters):
    value = only(filters)
    if value is None:
        return
    matches = parse(filters, SCHEMA).matches
    for ticket in (None, 1, 2, 3):
        for owner in (None, "1", "2"):
            for status in (None, "a", "b"):
                image = {"ticket": ticket, "owner": owner, "status": status}
                if matches(Row(image, SCHEMA)):
                    assert ticket == value, filters


@pytest.mark.django_db
def test_example_of_the_documentation_decides_by_the_only_value():
    (block,) = [
        block
        for block in code_blocks(ROOT / "docs" / "how-to" / "permissions.md", "python")
        if ".only(" in block
    ]
    names = {"Collection": Collection, "Post": Post, "Comment": Comment}
    lines = block.splitlines()
    source = [line for line in lines if not line.startswith(("from ", "@register", "#"))]
    exec("\n".join(source), names)
    comments = names["Comments"]()
    identity = Identity("key:a")
    draft = Post.objects.create(title="x")
    published = Post.objects.create(title="x", status="published")
    for filters, allowed in (
        ({"post": published.pk}, True),
        ({"post": {"in": [str(published.pk)]}}, True),
        ({"post": draft.pk}, False),
        ({"post": {"in": [published.pk, draft.pk]}}, False),
        ({"$or": [{"post": published.pk}, {"text": "x"}]}, False),
        ({}, False),
    ):
        assert (comments.grant(identity, filters) is not None) is allowed, filters

"""None in filters of the project's own code matches nothing, negated or not, in every backend."""

from enum import Enum

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import transaction
from django.utils.functional import SimpleLazyObject
from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.filters import FieldSpec, FilterIndex, Kind, Row, parse
from django_cocobase_realtime.filters.orm import to_q
from tests.app.models import Author, Everything
from tests.filters.strategies import conditions, rows
from tests.filters.test_backends_agree import CODEC, DATABASE_EXAMPLES, SCHEMA, Undo

pytestmark = pytest.mark.django_db
POSTS = {
    "owner": FieldSpec("owner", Kind.INTEGER),
    "editor": FieldSpec("editor", Kind.INTEGER),
    "name": FieldSpec("name", Kind.TEXT),
    "public": FieldSpec("public", Kind.BOOLEAN),
    "meta": FieldSpec("meta", Kind.JSON),
}
IMAGES = [
    {"owner": owner, "editor": editor, "name": "None", "public": public, "meta": meta}
    for owner in (None, 3, 5)
    for editor in (None, 3)
    for public in (True, False)
    for meta in ({}, {"owner": None}, {"owner": 3})
]


class NoUser(Enum):
    NONE = None


def matching(filters):
    """Return the images that match a trusted filter."""
    filter = parse(filters, POSTS, trusted=True)
    return [image for image in IMAGES if filter.matches(Row(image, POSTS))]


# conditions about which nothing is known
UNKNOWN = [
    {"owner": None},
    {"owner_eq": None},
    {"owner": {"eq": None}},
    {"owner__ne": None},
    {"owner__in": None},
    {"owner__in": [None]},
    {"owner__notin": None},
    {"owner__notin": [None]},
    {"owner__gte": None},
    {"owner__lt": None},
    {"owner__between": [None, 5]},
    {"owner__between": [0, None]},
    {"owner__between": None},
    {"owner__isnull": None},
    {"name__contains": None},
    {"name__startswith": None},
    {"name": None},
    {"meta.owner": None},
    {"meta.owner__ne": None},
    {"meta.owner__notin": [None, None]},
    {"meta__contains": None},
    {"owner__or__editor": None},
    {"owner__or__editor": {"ne": None}},
    {"[or]owner": None, "[or]editor": None},
    {"owner": {"gte": None, "lt": None}},
    {"owner": AnonymousUser()},
    {"owner": Author()},
    {"owner": NoUser.NONE},
    {"owner": SimpleLazyObject(lambda: None)},
    {"name": SimpleLazyObject(lambda: None)},
    {"owner__notin": [NoUser.NONE]},
    {"owner__notin": [SimpleLazyObject(lambda: None)]},
]


# conditions of which only the negation of the negation is known: 3 is in the list
LISTS_WITH_3 = [
    {"owner__notin": [None, 3]},
    {"owner__notin": {None, 3}},
    {"owner__notin": (3, Author())},
    {"owner": {"notin": [SimpleLazyObject(lambda: None), 3]}},
]


@pytest.mark.parametrize("leaf", [*UNKNOWN, *LISTS_WITH_3])
def test_condition_with_none_matches_nothing(leaf):
    filter = parse(leaf, POSTS, trusted=True)
    for made in (filter, filter & filter, filter | filter, filter & ~filter):
        assert [image for image in IMAGES if made.matches(Row(image, POSTS))] == []


@pytest.mark.parametrize("leaf", UNKNOWN)
def test_negated_condition_with_none_matches_nothing(leaf):
    assert matching({"$not": leaf}) == []
    assert matching({"$not": {"$not": leaf}}) == []
    assert matching({"$or": [{"$not": leaf}, leaf]}) == []
    filter = parse(leaf, POSTS, trusted=True)
    for made in (~filter, ~~filter, ~(filter & filter), ~(filter | ~filter)):
        assert [image for image in IMAGES if made.matches(Row(image, POSTS))] == []


@pytest.mark.parametrize("leaf", LISTS_WITH_3)
def test_values_beside_none_are_known_to_be_in_the_list(leaf):
    expected = [image for image in IMAGES if image["owner"] == 3]
    assert matching({"$not": leaf}) == expected
    assert matching({"$not": {"$not": leaf}}) == []


def test_iterator_with_none_matches_nothing():
    assert matching({"owner__notin": (value for value in (None, 3))}) == []


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        ({"$or": [{"owner": None}, {"public": True}]}, lambda row: row["public"]),
        ({"$or": [{"$not": {"owner": None}}, {"public": True}]}, lambda row: row["public"]),
        ({"$not": {"$or": [{"owner": None}, {"public": True}]}}, lambda row: False),
        ({"$not": {"$and": [{"owner": None}, {"public": True}]}}, lambda row: not row["public"]),
        ({"$not": {"owner": None, "public": True}}, lambda row: not row["public"]),
        ({"$not": {"$not": {"owner": None, "public": True}}}, lambda row: False),
        ({"owner__in": [None, 3]}, lambda row: row["owner"] == 3),
        ({"$not": {"owner__in": [None, 3]}}, lambda row: False),
        ({"$not": {"owner__notin": [None, 3]}}, lambda row: row["owner"] == 3),
        ({"owner__in": []}, lambda row: False),
        ({"$not": {"owner__in": []}}, lambda row: True),
        ({"owner__isnull": True}, lambda row: row["owner"] is None),
        ({"$not": {"owner": 3}}, lambda row: row["owner"] != 3),
        ({"$not": {"owner": {"gte": None, "lt": 4}}}, lambda row: not (row["owner"] or 9) < 4),
        ({"[or]owner": None, "[or]public": True}, lambda row: row["public"]),
    ],
)
def test_other_conditions_still_count(filters, matches):
    assert matching(filters) == [image for image in IMAGES if matches(image)]


# random filters against an evaluation with three values


@st.composite
def with_none(draw):
    """Draw a condition as a filter; in every second one, None is the value or one of the values."""
    name, operator, value = draw(conditions())
    if draw(st.booleans()):
        value = [*value, None] if isinstance(value, list) and draw(st.booleans()) else None
        if operator == "between" and value is not None:
            value = value[1:]
    return {name: {operator: value}}


def combined(children):
    several = st.lists(children, min_size=1, max_size=3)
    return st.one_of(
        several.map(lambda parts: {"$or": parts}),
        several.map(lambda parts: {"$and": parts}),
        children.map(lambda part: {"$not": part}),
    )


permission_filters = st.recursive(with_none(), combined, max_leaves=6)


def negated(value):
    return None if value is None else not value


def conjunction(values):
    return False if False in values else None if None in values else True


def evaluate(filters, row):
    """Return whether a filter matches; None if that depends on what stands in place of None."""
    ((key, value),) = filters.items()
    if key == "$not":
        return negated(evaluate(value, row))
    if key == "$and":
        return conjunction([evaluate(part, row) for part in value])
    if key == "$or":
        return negated(conjunction([negated(evaluate(part, row)) for part in value]))
    ((operator, operand),) = value.items()
    if operand is None or (operator == "between" and None in operand):
        return None
    if operator in ("in", "notin") and None in operand:
        known = [item for item in operand if item is not None]
        if parse({key: {"in": known}}, SCHEMA).matches(row):
            return operator == "in"
        return None
    return parse(filters, SCHEMA).matches(row)


@DATABASE_EXAMPLES
@given(st.lists(rows, max_size=4), st.lists(permission_filters, min_size=1, max_size=3))
def test_backends_agree_with_logic_of_three_values(db, drawn, given_filters):
    try:
        with transaction.atomic():
            Everything.objects.bulk_create([Everything(**row) for row in drawn])
            images = {
                row["id"]: CODEC.image(row) for row in Everything.objects.values(*CODEC.attnames)
            }
            checked = []
            for given_filter in given_filters:
                filter = parse(given_filter, SCHEMA, trusted=True)
                values = {
                    pk: evaluate(given_filter, Row(image, SCHEMA)) for pk, image in images.items()
                }
                checked.append((filter, {pk for pk in values if values[pk] is True}))
                checked.append((~filter, {pk for pk in values if values[pk] is False}))
                again = parse({"$not": {"$not": given_filter}}, SCHEMA, trusted=True)
                assert again.canonical() == filter.canonical()
            (first, first_pks), (second, second_pks) = checked[0], checked[-1]
            checked.append((first & second, first_pks & second_pks))
            checked.append((first | second, first_pks | second_pks))
            index = FilterIndex()
            for number, (filter, _) in enumerate(checked):
                index.add(number, filter)
            by_index = {number: set() for number in range(len(checked))}
            for pk, image in images.items():
                for number in index.matching(Row(image, SCHEMA)):
                    by_index[number].add(pk)
            for number, (filter, expected) in enumerate(checked):
                by_predicate = {pk for pk, i in images.items() if filter.matches(Row(i, SCHEMA))}
                queryset = Everything.objects.filter(to_q(filter, Everything, "default"))
                by_database = set(queryset.values_list("pk", flat=True))
                assert by_predicate == by_database == by_index[number] == expected, given_filters
            raise Undo
    except Undo:
        pass

"""Key sets in filters: predicate, database and index agree, also after the keys have changed."""

import uuid
from decimal import Decimal

import pytest
from django.db import transaction
from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.filters import Filter, FilterIndex, KeySet, Kind, Row, keys_of, parse
from django_cocobase_realtime.filters.nodes import (
    InKeySet,
    Not,
    all_of,
    any_of,
    negate,
)
from django_cocobase_realtime.filters.orm import to_q
from tests.app.models import Everything, Place
from tests.filters.strategies import VALUES, rows
from tests.filters.test_backends_agree import CODEC, DATABASE_EXAMPLES, SCHEMA, Undo

pytestmark = pytest.mark.django_db

# fields of all kinds that can be compared with a key set
FIELDS = ["big", "integer", "boolean", "char", "decimal", "float", "ip", "moment", "text", "uuid"]


def in_keys(name, values=()):
    kind = SCHEMA[name].compares_as
    return InKeySet((name,), kind, KeySet(name, kind, keys_of(kind, values)))


@st.composite
def nodes(draw, sets, depth=2):
    """Draw a node with some of the sets, combined with each other and with equalities."""
    if depth == 0 or draw(st.booleans()):
        if draw(st.booleans()):
            return draw(st.sampled_from(sets))
        name = draw(st.sampled_from(FIELDS))
        return parse({name: draw(VALUES[name])}, SCHEMA, trusted=True).root
    combine = draw(st.sampled_from([all_of, any_of, lambda parts: negate(parts[0])]))
    return combine([draw(nodes(sets, depth - 1)) for _ in range(2)])


@st.composite
def histories(draw):
    """Draw sets, filters with them, and the keys that the sets have one after the other."""
    sets = [
        in_keys(name) for name in draw(st.lists(st.sampled_from(FIELDS), min_size=1, max_size=3))
    ]
    filters = draw(st.lists(nodes(sets), min_size=1, max_size=4))
    values = [st.lists(VALUES[item.ref[0]], max_size=3) for item in sets]
    steps = draw(st.lists(st.tuples(*values), min_size=1, max_size=3))
    return sets, filters, steps


@DATABASE_EXAMPLES
@given(st.lists(rows, max_size=5), histories())
def test_predicate_database_and_index_agree_while_keys_change(db, drawn, history):
    sets, roots, steps = history
    filters = [Filter(root) for root in roots]
    index = FilterIndex()
    for number, filter in enumerate(filters):
        index.add(number, filter)
    try:
        with transaction.atomic():
            Everything.objects.bulk_create([Everything(**row) for row in drawn])
            images = {
                row["id"]: Row(CODEC.image(row), SCHEMA)
                for row in Everything.objects.values(*CODEC.attnames)
            }
            for step in steps:
                for item, values in zip(sets, step, strict=True):
                    item.key_set.replace(keys_of(item.kind, [*values, None]))
                by_index = {pk: index.matching(row) for pk, row in images.items()}
                assert all(len(numbers) == len(set(numbers)) for numbers in by_index.values())
                for number, filter in enumerate(filters):
                    expected = {pk for pk, row in images.items() if filter.matches(row)}
                    queryset = Everything.objects.filter(to_q(filter, Everything, "default"))
                    assert set(queryset.values_list("pk", flat=True)) == expected, filter
                    assert {pk for pk, numbers in by_index.items() if number in numbers} == expected
            raise Undo
    except Undo:
        pass
    for number, filter in enumerate(filters):
        index.discard(number, filter)
    assert not index
    assert all(item.key_set._listeners is None for item in sets)


@pytest.mark.parametrize("negated", [False, True])
def test_ten_thousand_keys(negated):
    places = Place.objects.bulk_create([Place(name=f"p{n}") for n in range(5)])
    kind = Kind.INTEGER
    keys = keys_of(kind, range(places[2].pk, places[2].pk + 10_000))
    sets = [InKeySet(("id",), kind, KeySet("q", kind, keys)) for _ in range(4)]
    root = any_of([*sets, Not(sets[0])] if negated else sets)
    places_in_sets = Place.objects.filter(to_q(Filter(root), Place, "default"))
    assert places_in_sets.count() == (5 if negated else 3)


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (Kind.INTEGER, [0, -5, 2**63 - 1]),
        (Kind.UUID, [uuid.UUID(int=7)]),
        (Kind.TEXT, ["", "ä", "1"]),
        (Kind.DECIMAL, [Decimal("1.10"), Decimal(0)]),
        (Kind.BOOLEAN, [True, False]),
    ],
)
def test_digest_depends_on_keys_only(kind, values):
    one, other = KeySet("a", kind, keys_of(kind, values)), KeySet("b", kind)
    assert one.digest != other.digest
    for key in reversed(keys_of(kind, values)):
        other.add(key)
    assert one.digest == other.digest
    assert (one.version, other.version) == (0, len(values))
    other.replace(())
    assert other.digest == KeySet("c", kind).digest


def test_changes_of_keys():
    key_set = KeySet("q", Kind.INTEGER, ["1", "2"])
    assert key_set.replace(["2", "3", None, "3"]) == (["3"], ["1"])
    assert key_set.replace(["3", "2"]) == ([], [])
    assert (key_set.version, list(key_set.keys)) == (1, ["2", "3"])
    assert key_set.add("4")
    assert not key_set.add("4")
    assert not key_set.add(None)
    assert key_set.discard("2")
    assert not key_set.discard("2")
    assert (key_set.version, list(key_set.keys)) == (3, ["3", "4"])


def test_filters_are_equal_only_with_the_same_set():
    one, other = in_keys("integer", [1]), in_keys("integer", [1])
    assert Filter(one) == Filter(InKeySet(one.ref, one.kind, one.key_set))
    assert Filter(one) != Filter(other)
    assert Filter(one).scope_text() == Filter(other).scope_text()
    before = Filter(one).canonical(), Filter(one).scope_text(), Filter(one).key_versions()
    one.key_set.add("2")
    assert Filter(one).canonical() == before[0]
    assert Filter(one).scope_text() != before[1]
    assert Filter(one).key_versions() != before[2]
    assert Filter(all_of([one, other, one])).key_sets() == (one.key_set, other.key_set)


def test_held_keys_do_not_change():
    item = in_keys("integer", [1])
    held = Filter(negate(item)).with_held_keys()
    item.key_set.add("2")
    assert held.matches(Row({"integer": 2}, SCHEMA))
    assert not Filter(negate(item)).matches(Row({"integer": 2}, SCHEMA))
    assert not held.matches(Row({"integer": 1}, SCHEMA))


def test_held_filter_keeps_what_is_unknown():
    row = Row({"integer": 1, "char": "a"}, SCHEMA)
    unknown = parse({"integer": None}, SCHEMA, trusted=True) & Filter(in_keys("char", ["a"]))
    assert unknown.decide(row) is None
    assert unknown.with_held_keys().decide(row) is None


def test_arm_that_loses_a_row_while_the_other_gains_it():
    one, other = in_keys("integer", [1]), in_keys("char", [])
    index = FilterIndex()
    index.add("both", Filter(any_of([one, other])))
    row = {"integer": 1, "char": "a"}
    assert index.matching(Row(row, SCHEMA)) == ["both"]
    other.key_set.add("a")
    assert index.matching(Row(row, SCHEMA)) == ["both"]
    one.key_set.discard("1")
    assert index.matching(Row(row, SCHEMA)) == ["both"]
    other.key_set.discard("a")
    assert index.matching(Row(row, SCHEMA)) == []


def candidates(index, **image):
    return len(index.candidates(Row(image, SCHEMA)))


def test_filter_stands_at_its_set_unless_another_value_is_rarer():
    index = FilterIndex()
    for number in range(200):
        own = in_keys("integer", range(number * 10, number * 10 + 10))
        index.add(number, Filter(all_of([own, parse({"char": "open"}, SCHEMA).root])))
    # the first filters are stored under the text, until that value proves to be frequent
    assert candidates(index, integer=1995, char="open") <= 20
    for number in range(200):
        shared = in_keys("small", range(10))
        index.add(number, Filter(all_of([shared, parse({"text": f"t{number}"}, SCHEMA).root])))
    assert candidates(index, small=5, text="t7") <= 5


def test_set_that_is_only_negated_is_not_indexed():
    index = FilterIndex()
    item = in_keys("integer", [1])
    index.add("a", Filter(negate(item)))
    assert candidates(index, integer=1) == 1
    assert item.key_set._listeners is None
    assert index.matching(Row({"integer": None}, SCHEMA)) == ["a"]

"""The index of intervals: finds all matching filters and checks few others."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.filters import FieldSpec, FilterIndex, Kind, Row, parse
from django_cocobase_realtime.filters.index.intervals import IntervalIndex, to_float

bounds = st.one_of(
    st.floats(allow_nan=False), st.integers(-10, 10).map(float), st.sampled_from([0.1, 1e300])
)


@given(st.lists(st.tuples(bounds, bounds, st.booleans()), max_size=30), bounds)
def test_index_finds_intervals_that_contain_the_value(drawn, value):
    ranges = IntervalIndex()
    remaining = {}
    for number, (low, high, discarded) in enumerate(drawn):
        ranges.add(number, low, high)
        if not discarded:
            remaining[number] = low, high
    for number, (low, high, discarded) in enumerate(drawn):
        if discarded:
            ranges.discard(number, low, high)
    found = ranges.containing(value)
    assert len(found) == len(set(found))
    holding = {number for number, (low, high) in remaining.items() if low <= value <= high}
    assert holding == set(found)
    for number, (low, high) in remaining.items():
        ranges.discard(number, low, high)
    assert not ranges


def test_event_checks_only_intervals_near_its_value():
    schema = {"price": FieldSpec("price", Kind.DECIMAL), "at": FieldSpec("at", Kind.DATETIME)}
    index = FilterIndex()
    filters = {n: {"price": {"gte": n * 10, "lt": n * 10 + 10}} for n in range(10_000)}
    shuffled = list(filters.items())
    random.Random(1).shuffle(shuffled)
    shuffled += [
        ("expensive", {"price_gt": "99990"}),
        ("cheap", {"price_lte": 5}),
        ("late", {"at_gte": "2026-01-01T00:00:00Z", "price_gte": 0}),
    ]
    parsed = {name: parse(filter, schema) for name, filter in shuffled}
    for name, filter in parsed.items():
        index.add(name, filter)
    row = Row({"price": "500.50", "at": "2026-06-01T00:00:00+00:00"}, schema)
    assert set(index.matching(row)) == {50, "late"}
    assert len(index.candidates(row)) < 10
    for name, filter in parsed.items():
        index.discard(name, filter)
    assert index._intervals == {}


def test_common_equality_is_not_used_as_index_key():
    schema = {"price": FieldSpec("price", Kind.INTEGER), "project": FieldSpec("project", Kind.TEXT)}
    index = FilterIndex()
    for n in range(1000):
        index.add(n, parse({"price_between": [n, n], "project": "default"}, schema))
    row = Row({"price": 500, "project": "default"}, schema)
    assert index.matching(row) == [500]
    assert len(index.candidates(row)) < 30
    assert index.matching(Row({"price": 500, "project": "other"}, schema)) == []


BOUNDS = {
    Kind.INTEGER: [-(2**53) - 1, -1, 0, 1, 2, 2**53 - 2, 2**53 - 1, 2**53, 2**53 + 1, 10**400],
    Kind.FLOAT: [-math.inf, -0.0, 0.0, 5e-324, 0.1, math.nextafter(0.1, 1), 2.0**53, math.inf],
    Kind.DECIMAL: ["-0.1", "0.1", "0.10000000000000000001", "1e-30", "1e300", "9007199254740993"],
    Kind.JSON: [-1, 0, 0.5, 1, 2**53 - 1, 2**53, 2**53 + 1, 9007199254740992.0, "1", True],
    Kind.DATETIME: [
        *("0001-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "2026-01-01T00:00:00Z"),
        *("2026-01-01T00:00:00.000001Z", "2026-01-01T01:00:00.000001+01:00"),
        *("9999-12-31T23:59:59.999998Z", "9999-12-31T23:59:59.999999Z"),
    ],
    Kind.DATE: ["0001-01-01", "2026-01-01", "2026-01-02", "9999-12-31"],
}


@pytest.mark.parametrize("kind", BOUNDS)
def test_index_agrees_with_predicate_at_the_bounds(kind):
    schema = {"x": FieldSpec("x", kind)}
    values = BOUNDS[kind]
    index = FilterIndex()
    parsed = []
    for low in values:
        parsed += [({operator: low}) for operator in ("gt", "gte", "lt", "lte")]
        for high in values:
            parsed += [{a: low, b: high} for a in ("gt", "gte") for b in ("lt", "lte")]
    parsed = [parse({"x": filter}, schema) for filter in parsed if True not in filter.values()]
    for number, filter in enumerate(parsed):
        index.add(number, filter)
    for value in [*values, None]:
        row = Row({"x": value}, schema)
        expected = {number for number, filter in enumerate(parsed) if filter.matches(row)}
        assert set(index.matching(row)) == expected, value


def test_only_numbers_are_converted_to_float():
    assert to_float(True) is None
    assert to_float("5") is None
    assert to_float(("text", "5")) is None
    assert to_float(("number", 5)) == 5.0
    assert to_float(10**400) == math.inf
    assert to_float(-(10**400)) == -math.inf

"""The index of ranges: never misses, gives back what it took, asks few."""

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.filters import FieldSpec, FilterIndex, Kind, Row, parse
from django_cocobase_realtime.filters.ranges import Ranges, position

places = st.one_of(
    st.floats(allow_nan=False), st.integers(-10, 10).map(float), st.sampled_from([0.1, 1e300])
)


@given(st.lists(st.tuples(places, places, st.booleans()), max_size=30), places)
def test_what_holds_the_value_is_found(drawn, value):
    ranges = Ranges()
    kept = {}
    for number, (low, high, goes) in enumerate(drawn):
        ranges.add(number, low, high)
        if not goes:
            kept[number] = low, high
    for number, (low, high, goes) in enumerate(drawn):
        if goes:
            ranges.discard(number, low, high)
    found = list(ranges.around(value))
    assert len(found) == len(set(found))
    holding = {number for number, (low, high) in kept.items() if low <= value <= high}
    assert holding <= set(found) <= set(kept)
    for number, (low, high) in kept.items():
        ranges.discard(number, low, high)
    assert not ranges


def test_an_event_asks_only_ranges_near_it():
    schema = {"price": FieldSpec("price", Kind.DECIMAL), "at": FieldSpec("at", Kind.DATETIME)}
    index = FilterIndex()
    shuffled = list(range(10_000))
    random.Random(1).shuffle(shuffled)
    for n in shuffled:
        index.add(n, parse({"price": {"gte": n * 10, "lt": n * 10 + 10}}, schema))
    index.add("dear", parse({"price_gt": "99990"}, schema))
    index.add("cheap", parse({"price_lte": 5}, schema))
    index.add("late", parse({"at_gte": "2026-01-01T00:00:00Z", "price_gte": 0}, schema))
    row = Row({"price": "500.50", "at": "2026-06-01T00:00:00+00:00"}, schema)
    assert set(index.matching(row)) == {50, "late"}
    assert len(index.candidates(row)) < 10
    for n in [*range(10_000), "dear", "cheap", "late"]:
        index.discard(n)
    assert index._ranges == {}


def test_a_value_that_all_ask_for_is_no_place_to_stand():
    schema = {"price": FieldSpec("price", Kind.INTEGER), "project": FieldSpec("project", Kind.TEXT)}
    index = FilterIndex()
    for n in range(1000):
        index.add(n, parse({"price_between": [n, n], "project": "default"}, schema))
    row = Row({"price": 500, "project": "default"}, schema)
    assert index.matching(row) == [500]
    assert len(index.candidates(row)) < 30
    assert index.matching(Row({"price": 500, "project": "other"}, schema)) == []


def test_only_what_has_a_place_on_a_line():
    assert position(True) is None
    assert position("5") is None
    assert position(("text", "5")) is None
    assert position(("number", 5)) == 5.0
    assert position(10**400) == math.inf
    assert position(-(10**400)) == -math.inf

"""Aggregates that are kept by deltas, compared with those that Python calculates of all rows.

``FOLD_EXAMPLES`` is the number of random histories.
"""

import os
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_cocobase_realtime.filters import FieldSpec, Kind, Row
from django_cocobase_realtime.live_queries.fold import Fold, Inconsistent
from django_cocobase_realtime.live_queries.queries import AggregateQuery

SCHEMA = {
    spec.name: spec
    for spec in (
        FieldSpec("project", Kind.KEY, Kind.INTEGER),
        FieldSpec("done", Kind.BOOLEAN),
        FieldSpec("rate", Kind.DECIMAL),
        FieldSpec("size", Kind.INTEGER),
        FieldSpec("hours", Kind.DECIMAL),
        FieldSpec("weight", Kind.FLOAT),
        FieldSpec("due", Kind.DATETIME),
        FieldSpec("title", Kind.TEXT),
    )
}
LARGE = 2**63 - 1
# values as in documents; those of "rate" are equal in pairs, and "x" is not valid
VALUES = {
    "project": [None, "1", "2", "10"],
    "done": [None, True, False],
    "rate": [None, "1.0", "1.00", "-0", "0.00", "x"],
    "size": [None, 0, 1, 1, -7, str(LARGE), str(-LARGE), "x"],
    "hours": [None, "0.1", "0.20", "0.2", "-3", "99999999999999999999999999999999.99", "NaN"],
    "weight": [None, 0.0, -0.0, 1.5, "inf", "nan"],
    "due": [None, "2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00.5+00:00", "2025-12-31T00:00Z"],
    "title": [None, "a", "B", "ä", "\U0001f600", "\uff5e", ""],
}
images = st.fixed_dictionaries({name: st.sampled_from(values) for name, values in VALUES.items()})
queries = st.builds(
    AggregateQuery,
    sum=st.sampled_from([(), ("size",), ("hours",), ("hours", "size")]),
    avg=st.sampled_from([(), ("size",), ("hours",)]),
    min=st.sampled_from([(), ("size",), ("hours", "due"), ("weight", "title")]),
    max=st.sampled_from([(), ("size",), ("hours", "title"), ("due", "weight")]),
    group_by=st.sampled_from([(), ("project",), ("rate",), ("project", "done"), ("due",)]),
)
# a row, and whether it matches the filter; None for a row that is deleted
states = st.none() | st.tuples(images, st.booleans())
histories = st.lists(st.tuples(st.integers(0, 5), states), max_size=30)


def row(image):
    return Row(image, SCHEMA)


def value(name, raw):
    """Return the value that a document's JSON value stands for; None if it is none."""
    if raw in (None, "x", "NaN", "nan"):
        return None
    match name:
        case "project" | "size":
            return int(raw)
        case "rate" | "hours":
            return Decimal(raw)
        case "weight":
            return float(raw)
        case "due":
            return datetime.fromisoformat(raw).astimezone(UTC)
    return raw


def decimal(total):
    return None if total is None else Decimal(total)


def in_groups(query, group):
    """Return a group of a frame in a form that can be compared."""
    assert group.keys() == {
        *(["key"] if query.group_by else []),
        "count",
        *(key for key in ("sum", "avg", "min", "max") if getattr(query, key)),
    }
    return (
        group["count"],
        {name: decimal(total) for name, total in group.get("sum", {}).items()},
        {name: (decimal(p["sum"]), p["n"]) for name, p in group.get("avg", {}).items()},
        {name: value(name, raw) for name, raw in group.get("min", {}).items()},
        {name: value(name, raw) for name, raw in group.get("max", {}).items()},
    )


def total_of(values):
    """Return the sum of numbers with at most two decimal places, by integers; None without any."""
    if not values:
        return None
    hundredths = sum(int(format(Decimal(number), ".2f").replace(".", "")) for number in values)
    text = f"{abs(hundredths):03d}"
    return Decimal(f"{'-' if hundredths < 0 else ''}{text[:-2]}.{text[-2:]}")


def recalculated(query, rows):
    """Return the groups of rows, calculated by Python alone, by their values."""
    groups = {} if query.group_by else {(): []}
    for image in rows:
        key = tuple(
            image[name] if image[name] == "x" else value(name, image[name])
            for name in query.group_by
        )
        groups.setdefault(key, []).append(image)
    result = {}
    for key, members in groups.items():
        values = {
            name: [v for image in members if (v := value(name, image[name])) is not None]
            for name in VALUES
        }
        result[key] = (
            len(members),
            {name: total_of(values[name]) for name in query.sum},
            {name: (total_of(values[name]), len(values[name])) for name in query.avg},
            {name: min(values[name], default=None) for name in query.min},
            {name: max(values[name], default=None) for name in query.max},
        )
    return result


def results(query, fold):
    """Return the groups of a fold, in the same form."""
    found = {}
    for key in fold:
        group = fold.result(key)
        shown_key = tuple(
            raw if raw == "x" else value(name, raw) for name, raw in group.get("key", {}).items()
        )
        assert shown_key not in found
        found[shown_key] = in_groups(query, group)
    return found


def folded(query, rows):
    fold = Fold(query, SCHEMA)
    for image in rows:
        fold.apply(None, row(image))
    assert not fold.needs
    return fold


@settings(max_examples=int(os.environ.get("FOLD_EXAMPLES", "150")))
@given(queries, histories)
def test_deltas_result_in_the_aggregates_of_all_rows(query, history):
    fold, rows = Fold(query, SCHEMA), {}
    for id, state in history:
        before = rows.pop(id, None)
        after = state[0] if state is not None and state[1] else None
        if after is not None:
            rows[id] = after
        old = results(query, fold)
        changed = fold.apply(*(image and row(image) for image in (before, after)))
        # extremes that have left are read again
        needs = set(fold.needs)
        fold.take(folded(query, rows.values()), needs)
        assert not fold.needs
        new = results(query, fold)
        assert new == recalculated(query, rows.values())
        # what differs was named
        named = {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
        assert len(named) <= len(set(changed) | needs)
        if not changed:
            assert not named


def test_a_group_is_read_again_only_if_its_extreme_leaves():
    query = AggregateQuery(min=("size",), max=("size",))
    fold = Fold(query, SCHEMA)
    images = [dict.fromkeys(VALUES) | {"size": size} for size in (1, 5, 5, 9)]
    for image in images:
        fold.apply(None, row(image))
    fold.apply(row(images[1]), None)
    assert not fold.needs
    # a higher maximum takes the place of the one that leaves with the same change
    fold.apply(row(images[3]), row(images[3] | {"size": 10}))
    assert not fold.needs
    assert fold.result(()) == {"count": 3, "min": {"size": 1}, "max": {"size": 10}}
    # a row that had another value gets the maximum
    assert fold.apply(row(images[2]), row(images[2] | {"size": 11})) == ((),)
    assert fold.result(())["max"] == {"size": 11}
    fold.apply(row(images[0]), row(images[0] | {"size": 2}))
    assert fold.needs == {()}


def test_the_last_value_leaves_without_a_need():
    fold = Fold(AggregateQuery(max=("size",), group_by=("project",)), SCHEMA)
    image = dict.fromkeys(VALUES) | {"size": 1, "project": "1"}
    for same in (image, image, image | {"size": None}):
        fold.apply(None, row(same))
    fold.apply(row(image), None)
    fold.apply(row(image), None)
    assert not fold.needs
    (key,) = fold
    assert fold.result(key) == {"key": {"project": "1"}, "count": 1, "max": {"size": None}}
    assert fold.apply(row(image | {"size": None}), None) == [key]
    assert fold.result(key) is None


def test_changes_that_do_not_alter_the_aggregates_name_no_group():
    query = AggregateQuery(sum=("hours",), group_by=("project",))
    fold = Fold(query, SCHEMA)
    image = dict.fromkeys(VALUES) | {"hours": "0.2", "project": "1"}
    fold.apply(None, row(image))
    assert not fold.apply(row(image), row(image | {"hours": "0.20", "title": "new"}))
    assert not Fold(AggregateQuery(), SCHEMA).apply(row(image), row(image))


def test_sums_that_javascript_cannot_represent_are_texts():
    fold = Fold(AggregateQuery(sum=("size",), avg=("size",)), SCHEMA)
    image = dict.fromkeys(VALUES) | {"size": str(LARGE)}
    fold.apply(None, row(image))
    fold.apply(None, row(image))
    total = str(2 * LARGE)
    assert fold.result(()) == {
        "count": 2,
        "sum": {"size": total},
        "avg": {"size": {"sum": total, "n": 2}},
    }


@pytest.mark.parametrize(
    "query",
    [AggregateQuery(), AggregateQuery(sum=("size",)), AggregateQuery(group_by=("project",))],
)
def test_a_row_that_was_not_counted_cannot_leave(query):
    image = row(dict.fromkeys(VALUES) | {"size": 1})
    with pytest.raises(Inconsistent):
        Fold(query, SCHEMA).apply(image, None)


def test_differences_of_two_readings():
    query = AggregateQuery(sum=("size",), group_by=("project",))
    images = [dict.fromkeys(VALUES) | {"size": 1, "project": str(n)} for n in range(4)]
    fold, other = folded(query, images[:3]), folded(query, images[1:])
    keys = fold.differences(other)
    assert len(keys) == 2
    assert sorted(fold.take(other, keys)) == sorted(keys)
    assert not fold.differences(other)

"""Hypothesis strategies for rows of `Everything`, and for filters of both forms."""

import math
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal

from hypothesis import strategies as st

# few values, so that filters match rows; some are folded, sorted or rounded specially
TEXTS = [
    "",
    "a",
    "A",
    "b",
    "ab",
    "Ab",
    "B a",
    "ä",
    "Ä",
    "ΑΣ",
    "ας",
    "ß",
    "İi",
    "ǅ",
    "%",
    "_",
    "z\U0001f600",
    "\uffff",
    "'\\",
]
texts = st.sampled_from(TEXTS)
integers = st.sampled_from([-(2**30), -1, 0, 1, 2, 18, 2**30 - 1])
bigs = st.sampled_from([-(2**63), -(2**53) - 1, -1, 0, 1, 2**53, 2**63 - 1])
decimals = st.sampled_from(["-10.5", "-0.0001", "0", "0.0001", "1.1", "1.1000", "99999.9999"]).map(
    Decimal
)
floats = st.sampled_from([-math.inf, -1.5, 0.0, 0.1, 1.0, 1e22, math.inf])
moments = st.sampled_from(
    [
        datetime(1999, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(2026, 1, 2, 10, tzinfo=UTC),
        datetime(2026, 1, 2, 10, 0, 0, 500, UTC),
        datetime(2026, 7, 2, 10, tzinfo=UTC),
    ]
)
dates = st.sampled_from([date(1, 1, 1), date(1999, 12, 31), date(2026, 1, 2)])
times = st.sampled_from([time(0), time(10, 0, 0, 1), time(10), time(23, 59, 59)])
uuids = st.sampled_from([uuid.UUID(int=n) for n in (0, 7, 2**127)])
ips = st.sampled_from(["10.0.0.1", "9.0.0.1", "::1", "::ffff:10.0.0.1", "fe80::1"])
scalars = st.one_of(
    st.none(), st.booleans(), st.sampled_from([0, 1, -1, 1.0, 0.1, 1e22, 10]), texts
)
jsons = st.one_of(
    scalars,
    st.lists(scalars, max_size=3),
    st.dictionaries(
        st.sampled_from(["a", "b", "0", "a_gt"]),
        st.one_of(scalars, st.lists(scalars, max_size=2), st.dictionaries(st.just("c"), scalars)),
        max_size=3,
    ),
)

VALUES = {
    "big": bigs,
    "boolean": st.booleans(),
    "char": texts,
    "date": dates,
    "moment": moments,
    "decimal": decimals,
    "email": texts,
    "float": floats,
    "integer": integers,
    "ip": ips,
    "json": jsons,
    "positive": st.sampled_from([0, 1, 2**62]),
    "slug": st.sampled_from(["a", "b-c", "B"]),
    "small": st.sampled_from([-1, 0, 1]),
    "text": texts,
    "time": times,
    "uuid": uuids,
}
NULLABLE = {
    "boolean",
    "date",
    "moment",
    "decimal",
    "float",
    "integer",
    "ip",
    "json",
    "positive",
    "small",
    "time",
    "uuid",
}

rows = st.fixed_dictionaries(
    {
        name: st.one_of(st.none(), values) if name in NULLABLE else values
        for name, values in VALUES.items()
    }
)

# values that no row has, and values that no column can store
BEYOND = {
    "big": st.sampled_from([2**64, -(2**70), 5]),
    "integer": st.sampled_from([2**40, -(2**40), 2**70, 5]),
    "small": st.sampled_from([2**20, -(2**70)]),
    "positive": st.sampled_from([-5, 2**70]),
    "decimal": st.sampled_from(["0.00005", "-0.00005", "1e30", "-1e30", "1.10001"]).map(Decimal),
    "double": st.sampled_from([0, 2, 36, 2**40]),
    "float": st.sampled_from([1e300, -0.0, 0.30000000000000004]),
    "id": st.sampled_from([0, 1, 2, 2**70]),
}
EQUALITY = ["eq", "ne", "in", "notin", "isnull"]
ORDERED = ["gt", "gte", "lt", "lte"]
TEXTUAL = ["contains", "icontains", "startswith", "endswith"]
PATHS = ["json", "json.a", "json.a.c", "json.0", "json.a_gt", "json.b"]


def as_wire_value(value):
    """Return a value in the form in which a client sends it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    return value.isoformat() if isinstance(value, date | time) else str(value)


def operand(name):
    strategies = [VALUES[name]] if name in VALUES and name != "json" else []
    if name in BEYOND:
        strategies.append(BEYOND[name])
    return st.one_of(*strategies).map(as_wire_value)


json_scalars = st.one_of(st.booleans(), st.sampled_from([0, 1, 1.0, 0.1, 1e22, 10]), texts)


@st.composite
def conditions(draw):
    """Draw (field, operator, operand)."""
    path = draw(st.sampled_from(["", "", "", *PATHS]))
    name = path or draw(st.sampled_from(sorted({*VALUES, *BEYOND} - {"json"})))
    base = name.partition(".")[0]
    operators = [*EQUALITY]
    values = json_scalars if base == "json" else operand(base)
    if base == "json":
        operators += ["contains", *ORDERED, *TEXTUAL, "between"]
    else:
        operators += [*ORDERED, "between"]
    if base in ("char", "email", "slug", "text", "ip"):
        operators += TEXTUAL
    operator = draw(st.sampled_from(operators))
    if operator == "isnull":
        return name, operator, draw(st.sampled_from([True, False, "true", "0"]))
    if operator in ("in", "notin"):
        return name, operator, draw(st.lists(values, max_size=3))
    if base == "json" and operator in [*ORDERED, "between"]:
        values = st.one_of(st.sampled_from([0, 1, 0.1, 10, 1e22]), texts)
    if operator in TEXTUAL and not (base == "json" and "contains" in operator):
        values = texts
    if base == "json" and operator in ("startswith", "endswith"):
        values = texts
    if operator == "between":
        return name, operator, [draw(values), draw(values)]
    return name, operator, draw(values)


@st.composite
def flat(draw):
    """Draw a filter in the flat form: ``{"[or:g]field_op": operand}``."""
    filters = {}
    for name, operator, value in draw(st.lists(conditions(), max_size=3)):
        prefix = draw(st.sampled_from(["", "", "[or]", "[or:x]"]))
        separator = draw(st.sampled_from(["_", "__"]))
        others = ""
        if operator in TEXTUAL and not name.startswith("json"):
            others = draw(st.sampled_from(["", "char__or__", "text__or__email__or__"]))
        suffix = "" if operator == "eq" and draw(st.booleans()) else f"{separator}{operator}"
        if name == "json.a_gt" and not suffix:
            suffix = "_eq"  # otherwise the path would end in an operator
        filters[f"{prefix}{others}{name}{suffix}"] = value
    return filters


@st.composite
def structured(draw, depth=2):
    """Draw a filter in the structured form, nested, with flat keys in between."""
    filters = draw(flat())
    for name, operator, value in draw(st.lists(conditions(), max_size=2)):
        filters[name] = {operator: value}
    if depth:
        if draw(st.booleans()):
            filters["$or"] = draw(st.lists(structured(depth - 1), min_size=1, max_size=2))
        if draw(st.booleans()):
            filters["$not"] = draw(structured(depth - 1))
        if draw(st.booleans()):
            filters["$and"] = draw(st.lists(structured(depth - 1), min_size=1, max_size=2))
    return filters


filters = st.one_of(flat(), structured())

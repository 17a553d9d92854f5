"""Values at and beyond the limits of a database are rejected, or all backends agree on them."""

import json
import time as time_module
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import product
from uuid import UUID

import pytest

from django_cocobase_realtime.declarations.serialization import RowCodec
from django_cocobase_realtime.filters import InvalidFilter, Row, parse
from django_cocobase_realtime.filters.orm import field_spec, to_q
from tests.app.models import Everything

pytestmark = pytest.mark.django_db

CODEC = RowCodec(Everything)
SCHEMA = {name: field_spec(field) for name, field in CODEC.fields.items()}
ROWS = [
    {},
    {
        "big": 2**63 - 1,
        "boolean": True,
        "char": "1",
        "date": date.max,
        "moment": datetime.max.replace(tzinfo=UTC),
        "decimal": Decimal("99999999999.9999"),
        "float": 1.7e308,
        "integer": 2**30 - 1,
        "ip": "255.255.255.255",
        "json": {"a": 2**60, "b": [10**30, 1e300], "c": "9" * 40},
        "positive": 2**63 - 1,
        "small": 2**15 - 1,
        "text": "9" * 70,
        "time": time.max,
        "uuid": UUID(int=2**128 - 1),
    },
    {
        "big": -(2**63),
        "boolean": False,
        "date": date.min,
        "moment": datetime.min.replace(tzinfo=UTC),
        "decimal": Decimal("-99999999999.9999"),
        "float": -5e-324,
        "integer": -(2**30),
        "ip": "::",
        "json": -1.5,
        "positive": 0,
        "small": -(2**15),
        "text": "\U0010ffff",
        "time": time.min,
        "uuid": UUID(int=0),
    },
]
NUMBERS = [0, 1, -1, 2**15, 2**31, 2**53, -(2**53), 1e15, 1e308, -1e308, 5e-324, 0.1, -0.0]
TEXTS = [
    "",
    " 1",
    "+1",
    "1_0",
    "٣",
    "true",
    *(str(n) for n in (2**31, 2**63 - 1, 2**63, -(2**63) - 1, 2**64, 10**39, -(10**39), 10**60)),
    *("inf", "-Infinity", "nan", "sNaN", "1e308", "1e309", "1e400", "-1e400", "1e-400", "0e999"),
    *("1e999999999", "9" * 70, "-" + "9" * 70, "0." + "0" * 70 + "1", "9999999999999999.99995"),
    *("0001-01-01", "9999-12-31", "0000-01-01", "10000-01-01", "2026-02-30", "2026-W01-1"),
    *("0001-01-01T00:00:00", "9999-12-31T23:59:59.999999", "0001-01-01T00:00:00+14:00"),
    *("9999-12-31T23:59:59.999999-14:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"),
    *("2026-01-01T00:00:00+23:59", "2026-01-01T24:00:00", "00:00", "23:59:59.999999", "10:00Z"),
    *("ffffffff-ffff-ffff-ffff-ffffffffffff", "0" * 32, "{" + "0" * 32 + "}", "g" * 32),
    *("255.255.255.255", "256.0.0.1", "::", "::ffff:1.2.3.4", "fe80::1%eth0", "1.2.3.4/8"),
    *("%", "_", "\\", "'", "$$", "\ufffe", "\U0010ffff", "x" * 5_000),
]
OTHERS = [True, False, None, [], {}, [[]], {"eq": 1}, {"$gt": 1}]
OPERATORS = ["eq", "ne", "gt", "gte", "lt", "lte", "contains", "startswith", "endswith", "isnull"]


def operands():
    for value in [*NUMBERS, *TEXTS, *OTHERS]:
        for operator in OPERATORS:
            yield operator, value
        yield "in", [value, 1]
        yield "notin", [value]
        yield "between", [value, value]


ALIKE = {"binary", "email", "file", "path", "slug", "text", "url"}
NAMES = [*sorted(set(SCHEMA) - ALIKE), "json.a", "json.b", "json.c"]


@pytest.mark.parametrize("name", NAMES)
def test_extreme_value_is_rejected_or_backends_agree(name):
    for row in ROWS:
        Everything.objects.create(**row)
    images = {row["id"]: CODEC.image(row) for row in Everything.objects.values(*CODEC.attnames)}
    rows = {pk: Row(json.loads(json.dumps(image)), SCHEMA) for pk, image in images.items()}
    for operator, value in operands():
        for given_filters in ({name: {operator: value}}, {"$not": {f"{name}__{operator}": value}}):
            try:
                filter = parse(given_filters, SCHEMA)
            except InvalidFilter:
                continue
            found = Everything.objects.filter(to_q(filter, Everything, "default"))
            by_database = set(found.values_list("pk", flat=True))
            assert by_database == {pk for pk, row in rows.items() if filter.matches(row)}, (
                given_filters
            )


@pytest.mark.parametrize("zone", ["America/Chicago", "Asia/Tokyo"])
def test_naive_datetimes_at_the_ends_of_the_calendar(settings, zone):
    """Without USE_TZ, the first and last local times are outside the calendar in UTC."""
    settings.USE_TZ, settings.TIME_ZONE = False, zone
    schema = {name: field_spec(field) for name, field in CODEC.fields.items()}
    moments = {
        Everything.objects.create(moment=moment).pk: moment
        for moment in (datetime.min, datetime(2026, 1, 1), datetime.max)
    }
    images = {row["id"]: CODEC.image(row) for row in Everything.objects.values(*CODEC.attnames)}
    rows = {pk: Row(json.loads(json.dumps(image)), schema) for pk, image in images.items()}
    for value, operator in product(TEXTS, ["eq", "ne", "gt", "gte", "lt", "lte"]):
        try:
            filter = parse({"moment": {operator: value}}, schema)
        except InvalidFilter:
            continue
        found = Everything.objects.filter(to_q(filter, Everything, "default"))
        by_database = {moments[pk] for pk in found.values_list("pk", flat=True)}
        by_predicate = {moments[pk] for pk, row in rows.items() if filter.matches(row)}
        assert by_database == by_predicate, (operator, value)
    assert {datetime.fromisoformat(image["moment"]).tzinfo for image in images.values()} == {UTC}


def test_decimal_digits_are_not_truncated():
    near = parse({"decimal": "1." + "0" * 80 + "1"}, SCHEMA)
    assert not near.matches(Row({"decimal": "1.0000"}, SCHEMA))
    with pytest.raises(InvalidFilter):
        parse({"decimal": "1." + "0" * 30_000}, SCHEMA)


@pytest.mark.parametrize("name", ["json.a" + ".a" * 5_000, "json.b" + ".b" * 25_000, "json.b_gt"])
def test_long_path_is_rejected_quickly(name):
    """Long paths overflow PostgreSQL's stack, and checking each prefix takes too long."""
    started = time_module.monotonic()
    with pytest.raises(InvalidFilter):
        parse({name: 1}, SCHEMA, allowed=["json.a", "integer"])
    assert time_module.monotonic() - started < 0.5

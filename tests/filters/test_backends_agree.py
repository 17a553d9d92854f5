"""The three backends of a filter agree on every row: predicate, database and index."""

import os

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_cocobase_realtime.declarations.serialization import RowCodec
from django_cocobase_realtime.filters import FilterIndex, Row, fold, parse
from django_cocobase_realtime.filters.orm import field_spec, to_q
from django_cocobase_realtime.filters.orm_order import ordering
from django_cocobase_realtime.filters.sql import _lower
from tests.app.models import Everything
from tests.filters.strategies import TEXTS, filters, rows
from tests.support.as_of import by

EXAMPLES = int(os.environ.get("EXAMPLES", "100"))
# settings of tests that write rows for each example
DATABASE_EXAMPLES = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.function_scoped_fixture,
    ],
)
CODEC = RowCodec(Everything)
SCHEMA = {name: field_spec(field) for name, field in CODEC.fields.items()}

pytestmark = pytest.mark.django_db


class Undo(Exception):
    pass


@DATABASE_EXAMPLES
@given(st.lists(rows, max_size=5), st.lists(filters, min_size=1, max_size=4))
def test_predicate_database_and_index_agree(db, drawn, given_filters):
    try:
        with transaction.atomic():
            Everything.objects.bulk_create([Everything(**row) for row in drawn])
            images = {
                row["id"]: CODEC.image(row) for row in Everything.objects.values(*CODEC.attnames)
            }
            parsed = [parse(given, SCHEMA) for given in given_filters]
            index = FilterIndex()
            for number, filter in enumerate(parsed):
                index.add(number, filter)
            by_index = {number: set() for number in range(len(parsed))}
            for pk, image in images.items():
                for number in index.matching(Row(image, SCHEMA)):
                    by_index[number].add(pk)
            for number, filter in enumerate(parsed):
                by_predicate = {pk for pk, i in images.items() if filter.matches(Row(i, SCHEMA))}
                queryset = Everything.objects.filter(to_q(filter, Everything, "default"))
                by_database = list(queryset.values_list("pk", flat=True))
                assert len(by_database) == len(set(by_database))
                assert by_predicate == set(by_database) == by_index[number], given_filters[number]
            raise Undo
    except Undo:
        pass


@pytest.mark.parametrize("text", TEXTS)
def test_predicate_and_database_fold_case_alike(text):
    for other in TEXTS:
        Everything.objects.create(text=other)
    for operator in ("contains", "startswith", "endswith"):
        filter = parse({f"text_{operator}": text}, SCHEMA)
        expected = {o for o in TEXTS if filter.matches(Row({"text": o}, SCHEMA))}
        queryset = Everything.objects.filter(to_q(filter, Everything, "default"))
        assert set(queryset.values_list("text", flat=True)) == expected


def test_fold_equals_folding_of_database_for_every_character():
    surrogates = range(0xD800, 0xE000)
    cased = [chr(n) for n in range(1, 0x1FFFF) if n not in surrogates and chr(n).lower() != chr(n)]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(
                f"SELECT t, {_lower('t', connection)} FROM unnest(%s::text[]) t", [cased]
            )
        else:
            values = ", ".join(["(%s)"] * len(cased))
            cursor.execute(f"SELECT column1, realtime_fold(column1) FROM (VALUES {values})", cased)
        queryset = dict(cursor.fetchall())
    assert {character: fold(character) for character in cased} == queryset


@pytest.mark.parametrize(
    "name", ["text", "integer", "float", "moment", "uuid", "-text", "-integer"]
)
def test_order_of_database_equals_order_of_values(name):
    values = {
        "text": TEXTS,
        "integer": [5, None, -1],
        "float": [0.5, None, -1.0],
        "moment": [None, "2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z"],
        "uuid": [
            None,
            "00000000-0000-0000-0000-000000000007",
            "f0000000-0000-0000-0000-000000000000",
        ],
    }[name.removeprefix("-")]
    for value in values:
        Everything.objects.create(**{name.removeprefix("-"): value})
    images = [CODEC.image(row) for row in Everything.objects.values(*CODEC.attnames)]

    def key(image):
        value = Row(image, SCHEMA).get((name.removeprefix("-"),))
        return (value is not None, value) if value is not None else (False, 0)

    expected = [key(image) for image in sorted(images, key=key, reverse=name.startswith("-"))]
    queryset = Everything.objects.order_by(*ordering(Everything, by(name), "default"))
    assert [key(CODEC.image(row)) for row in queryset.values(*CODEC.attnames)] == expected

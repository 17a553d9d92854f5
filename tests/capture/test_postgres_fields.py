"""For fields of ``django.contrib.postgres``, the event equals the row, the snapshot and filters."""

import os
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import connection, models

if not apps.is_installed("tests.postgres_app"):
    pytest.skip("The fields need PostgreSQL.", allow_module_level=True)

from django.contrib.postgres.signals import register_type_handlers
from django.db.backends.postgresql.psycopg_any import (
    DateRange,
    DateTimeTZRange,
    NumericRange,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_cocobase_realtime.capture.triggers import install, remove
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.filters import Row, parse
from django_cocobase_realtime.filters.orm import to_q
from tests.postgres_app.models import Arrays, Ranges, Store
from tests.support.triggers import installed_triggers
from tests.support.watching import (
    assert_log_gives_tables,
    forget_logged,
    logged,
    table_images,
    watching,
)

pytestmark = pytest.mark.django_db(transaction=True)
EXAMPLES = int(os.environ.get("EXAMPLES", "25"))
check = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
texts = st.sampled_from(["", "a", "ä", '"', "\\", ",", "{}", "NULL", "null", "a b", "\U0001f600"])
integers = st.sampled_from([-(2**31), -1, 0, 1, 5, 2**31 - 2])
bigs = st.sampled_from([-(2**63), -(2**53) - 1, 0, 7, 2**53, 2**63 - 2])
decimals = st.sampled_from(["-10.5", "0", "0.01", "1.10", "99999.99"]).map(Decimal)
dates = st.sampled_from([date(1, 1, 1), date(1999, 12, 31), date(2026, 1, 2)])
moments = st.sampled_from(
    [
        datetime(1999, 12, 31, 23, 59, 59, 999999, UTC),
        datetime(2026, 1, 2, 10, tzinfo=UTC),
        datetime(2026, 7, 2, 10, 0, 0, 500, UTC),
    ]
)


def lists(values):
    return st.one_of(st.none(), st.lists(values, max_size=3))


arrays = st.fixed_dictionaries(
    {
        "integers": lists(st.one_of(st.none(), integers)),
        "bigs": lists(bigs),
        "floats": lists(st.sampled_from([-1.5, 0.0, 0.1, 1e22, float("inf")])),
        "decimals": lists(decimals),
        "decimal_matrix": lists(st.lists(decimals, min_size=2, max_size=2)),
        "texts": st.lists(texts, max_size=3),
        "booleans": lists(st.one_of(st.none(), st.booleans())),
        "dates": lists(dates),
        "moments": lists(moments),
        "uuids": lists(st.uuids()),
        "matrix": lists(st.lists(integers, min_size=2, max_size=2)),
    }
)


@st.composite
def ranges_of(draw, kind, values):
    if draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from([None, kind(empty=True)]))
    lower, upper = sorted([draw(values), draw(values)])
    lower, upper = draw(st.sampled_from([lower, None])), draw(st.sampled_from([upper, None]))
    return kind(lower, upper, draw(st.sampled_from(["[)", "(]", "[]", "()"])))


ranges = st.fixed_dictionaries(
    {
        "integers": ranges_of(NumericRange, integers),
        "bigs": ranges_of(NumericRange, bigs),
        "decimals": ranges_of(NumericRange, decimals),
        "dates": ranges_of(DateRange, dates),
        "moments": ranges_of(DateTimeTZRange, moments),
    }
)
stores = st.fixed_dictionaries(
    {"pairs": st.one_of(st.none(), st.dictionaries(texts, st.one_of(st.none(), texts), max_size=3))}
)


@pytest.fixture(params=["signals", "triggers"])
def capture(request):
    return request.param


@pytest.fixture(autouse=True)
def _tables(transactional_db, request):
    created = [Arrays, Ranges]
    if "store" in request.node.name:
        with connection.cursor() as cursor:
            cursor.execute("SELECT FROM pg_available_extensions WHERE name = 'hstore'")
            if cursor.fetchone() is None:
                pytest.skip("The server has no extension hstore.")
            cursor.execute("CREATE EXTENSION IF NOT EXISTS hstore")
        register_type_handlers(connection)
        created.append(Store)
    with connection.schema_editor() as editor:
        for model in created:
            editor.create_model(model)
    yield
    with connection.schema_editor() as editor:
        for model in created:
            editor.delete_model(model)


def write_and_compare(model, capture, drawn):
    with watching(model, capture=capture):
        collection = registry.get(model._meta.model_name)
        model.objects.all().delete()
        if capture == "triggers":
            install(collection)
        try:
            forget_logged()
            first, second = drawn
            row = model.objects.create(**first)
            model.objects.bulk_create([model(**second)])
            for name, value in second.items():
                setattr(row, name, value)
            row.save()
            model.objects.filter(pk=row.pk).update(**first)
            assert_log_gives_tables()
            assert_snapshot_and_filters_agree(collection)
        finally:
            if capture == "triggers":
                remove(collection)


def assert_snapshot_and_filters_agree(collection):
    model, codec, schema = collection.concrete_model, collection.codec, collection.schema
    last = {change.document_id: change.after for change in logged(collection.name)}
    snapshot = {
        codec.document_id(row["id"]): codec.image(row)
        for row in models.QuerySet(model).values(*codec.attnames)
    }
    assert last == snapshot == table_images(collection)
    for stored in models.QuerySet(model):
        # what has_object_permission gets, without another query
        instance = codec.to_instance(model, last[str(stored.pk)], "default")
        assert vars(instance) | {"_state": None} == vars(stored) | {"_state": None}
    for name in codec.fields:
        for is_null in (True, False):
            filter = parse({f"{name}_isnull": is_null}, schema)
            in_memory = {id for id, image in last.items() if filter.matches(Row(image, schema))}
            rows = models.QuerySet(model).filter(to_q(filter, model, "default"))
            assert in_memory == {str(key) for key in rows.values_list("pk", flat=True)}


@check
@given(st.tuples(arrays, arrays))
def test_arrays(capture, drawn):
    write_and_compare(Arrays, capture, drawn)


@check
@given(st.tuples(ranges, ranges))
def test_ranges(capture, drawn):
    write_and_compare(Ranges, capture, drawn)


@check
@given(st.tuples(stores, stores))
def test_store(capture, drawn):
    write_and_compare(Store, capture, drawn)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (Ranges, {"integers": NumericRange(1, 5), "moments": DateTimeTZRange(None, None, "()")}),
        (Arrays, {"dates": [date(2026, 1, 2)], "decimal_matrix": [[Decimal("1.50")]]}),
    ],
)
async def test_row_permission_reads_values_of_deleted_rows(
    realtime, api_key, settings, capture, model, values
):
    """The row is gone, so they can be in the image alone."""
    collection = {
        "model": model,
        "capture": capture,
        "permission": "tests.support.permissions.ReadsEverything",
    }
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"rows": collection}, "LOG": {"POLL": 0.2}}
    triggers = installed_triggers()
    await sync_to_async(triggers.__enter__)()
    try:
        async with realtime(token=api_key) as client:
            cursor = (await client.subscribe("rows"))["cursor"]
            row = await model.objects.acreate(**values)
            assert (await client.receive("event"))["event"] == "created"
            await row.adelete()
            assert (await client.receive("event"))["event"] == "deleted"
        async with realtime(token=api_key) as client:
            await client.subscribe("rows", since=cursor)
            received = [await client.receive("event") for _ in range(2)]
            assert [event["event"] for event in received] == ["created", "deleted"]
    finally:
        await sync_to_async(triggers.__exit__)(None, None, None)

"""The images of triggers are those of capture by signals, for values of every type."""

import json
import os
import random

import pytest
from django.db import models, transaction

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.models import LogEvent
from tests.app.fields import Status
from tests.app.models import Author, Everything, Patient, UuidThing
from tests.capture_app.models import Wrapped, WrappedNumber
from tests.support.nasty_rows import Random
from tests.support.triggers import execute, installed_triggers, is_postgres
from tests.support.watching import forget_logged, logged, table_images

pytestmark = pytest.mark.django_db(transaction=True)
ROWS = int(os.environ.get("TRIGGER_ROWS", "3000"))
PART = 250


@pytest.fixture
def both(settings):
    """Declare a collection by signals and one by triggers of a model, and install triggers."""
    contexts = []

    def declare(model, **options):
        entry = {"model": model._meta.label, **options}
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": {
                "signals": {**entry, "capture": "signals"},
                "triggers": {**entry, "capture": "triggers"},
            }
        }
        context = installed_triggers()
        context.__enter__()
        contexts.append(context)

    yield declare
    for context in contexts:
        context.__exit__(None, None, None)


def events(collection):
    """Return the events of a collection as JSON, which distinguishes 1, 1.0 and true."""
    return sorted(
        json.dumps([c.op, c.document_id, c.before, c.after, c.changed]) for c in logged(collection)
    )


def assert_same_events():
    """Compare the events of both collections, and forget them."""
    by_signals, by_triggers = events("signals"), events("triggers")
    assert by_signals
    for one, two in zip(by_signals, by_triggers, strict=True):
        assert one == two
    for name in ("signals", "triggers"):
        codec = registry.get(name).codec
        for change in logged(name):
            assert all(codec.is_complete(i) for i in (change.before, change.after) if i is not None)
    forget_logged()


@pytest.mark.parametrize("seed", range(-(-ROWS // PART // 4)))
def test_images_of_random_rows(both, seed):
    draw = Random(random.Random(seed), nul=not is_postgres())
    both(Everything)
    for _ in range(4):
        Everything.objects.bulk_create([Everything(**draw.everything()) for _ in range(PART)])
        assert_same_events()
        Everything.objects.update(**draw.everything())
        assert_same_events()
        Everything.objects.all().delete()
        assert_same_events()


def test_images_of_negative_zero(both):
    both(Everything)
    Everything.objects.create(float=-0.0)
    (change,) = logged("triggers")
    assert change.after["float"] == 0.0
    assert type(change.after["float"]) is float


def test_images_of_fields_with_a_conversion_of_their_own(both):
    draw = Random(random.Random(1), nul=False)
    both(Patient)
    for values in (
        lambda: {"diagnosis": draw.text(), "packed": draw.text(), "status": Status.DONE},
        lambda: {"name": draw.text(50)},
    ):
        Patient.objects.bulk_create([Patient(**values()) for _ in range(PART)])
        assert_same_events()
        Patient.objects.update(diagnosis="ü", packed="ö")
        assert_same_events()


def test_key_without_text(both):
    both(WrappedNumber)
    WrappedNumber.objects.create(name="a")
    assert_same_events()
    WrappedNumber.objects.update(name="b")
    (change,) = logged("triggers")
    assert change.before == {**change.after, "name": "a"}
    forget_logged()
    models.QuerySet(WrappedNumber)._raw_delete("default")
    assert_same_events()


def test_what_a_project_encrypts_is_encrypted_in_the_log(both):
    both(Patient)
    Patient.objects.create(name="x", diagnosis="influenza")
    stored = LogEvent.objects.get(collection="triggers").after
    assert "enc:" in stored
    assert "influenza" not in stored
    codec = registry.get("triggers").codec
    (change,) = logged("triggers")
    assert codec.decode(change.after, "default")["diagnosis"] == "influenza"


@pytest.mark.parametrize("model", [Wrapped, UuidThing])
def test_images_of_rows_with_a_key_of_another_type(both, model):
    both(model)
    key = {"id": "ä'\""} if model is Wrapped else {}
    model.objects.create(name="a", **key)
    assert_same_events()
    model.objects.update(name="b")
    assert_same_events()
    models.QuerySet(model)._raw_delete("default")
    assert_same_events()


def test_columns_that_are_not_wanted_are_not_in_the_log(both):
    both(Author)
    Author.objects.create(name="Ada", password="hunter2")
    Author.objects.update(name="Eve")
    Author.objects.all().delete()
    assert_same_events()
    both(Author)
    Author.objects.create(name="Ada", password="hunter2")
    Author.objects.update(password="hunter3")
    stored = str(list(LogEvent.objects.values("before", "after")))
    assert "Ada" in stored
    assert "hunter" not in stored
    assert "password" not in stored


def test_images_of_many_transactions_in_one_read(both):
    draw = Random(random.Random(2), nul=False)
    both(Everything)
    for _ in range(20):
        with transaction.atomic():
            Everything.objects.create(**draw.everything())
            Everything.objects.update(integer=draw.integer(10))
    assert_same_events()


# values that the ORM does not write

SQLITE_VALUES = [
    "1",
    "-1",
    "9223372036854775807",
    "1.5",
    "1e999",
    "-1e999",
    "1e-320",
    "''",
    "'text'",
    "'1'",
    "'1.0'",
    "x''",
    "x'00ff'",
    "x'616263'",
    "NULL",
]
SQLITE_COLUMNS = ["big", "boolean", "char", "decimal", "float", "integer", "text", "uuid", "binary"]


@pytest.mark.skipif(is_postgres(), reason="PostgreSQL's columns have one type.")
@pytest.mark.parametrize("column", SQLITE_COLUMNS)
def test_values_of_any_type_in_a_column_of_sqlite(both, column):
    """A value is logged as the ORM reads it, and also if the ORM cannot read it."""
    both(Everything)
    collection = registry.get("triggers")
    for value in SQLITE_VALUES:
        instance = Everything.objects.create()
        forget_logged()
        if value == "NULL" and not Everything._meta.get_field(column).null:
            continue
        execute(f'UPDATE app_everything SET "{column}" = {value}')
        (change,) = logged("triggers")
        assert change.op == "updated"
        assert set(change.after) == set(collection.codec.fields)
        json.dumps(change.after)
        try:
            images = table_images(collection)
        except Exception:
            pass
        else:
            assert json.dumps([change.after]) == json.dumps(list(images.values())), value
        execute("DELETE FROM app_everything")
        assert logged("triggers")[-1].before == change.after
        assert change.document_id == str(instance.pk)

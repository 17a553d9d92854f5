"""Images of rows have the values that the database holds."""

import os
import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal

import pytest
from django.contrib.postgres.fields import ArrayField
from django.db import models
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_cocobase_realtime.declarations.image_fields import is_secret_looking
from django_cocobase_realtime.declarations.serialization import (
    RowCodec,
    changed_fields,
    field_encoder,
)
from tests.app.models import Author, Comment, Everything, UuidThing

EXAMPLES = int(os.environ.get("EXAMPLES", "60"))
text = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=40)
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
moments = st.datetimes(datetime(1900, 1, 1), datetime(2100, 1, 1), timezones=st.timezones())
values = st.fixed_dictionaries(
    {
        "big": st.integers(-(2**63), 2**63 - 1),
        "binary": st.binary(max_size=20),
        "boolean": st.none() | st.booleans(),
        "date": st.none() | st.dates(),
        "moment": st.none() | moments,
        "decimal": st.none() | st.decimals(-(10**9), 10**9, places=4) | st.integers(-9, 9),
        "duration": st.none() | st.timedeltas(timedelta(-9999), timedelta(9999)),
        "file": st.none() | st.sampled_from(["a.txt", "dir/ü.png"]),
        "float": st.none() | st.floats(allow_nan=False, allow_infinity=False, width=32),
        "ip": st.none() | st.ip_addresses().map(str),
        "integer": st.none() | st.integers(-(2**30), 2**30 - 1),
        "json": json,
        "text": text,
        "time": st.none() | st.times(),
        "uuid": st.none() | st.uuids() | st.uuids().map(lambda u: u.hex.upper()),
    }
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(values=values)
@pytest.mark.django_db
def test_image_of_a_row_has_the_values_that_were_saved(values):
    codec = RowCodec(Everything)
    instance = Everything(**values)
    instance.save()
    image = codec.image(Everything.objects.filter(pk=instance.pk).values(*codec.attnames).get())
    assert image.pop("double") == (None if values["integer"] is None else values["integer"] * 2)
    assert image == {
        name: field_encoder(field)(getattr(instance, field.attname))
        for name, field in codec.fields.items()
        if name != "double"
    }


@pytest.mark.parametrize(
    ("field", "value", "wire"),
    [
        (models.IntegerField(), 2**53 - 1, 2**53 - 1),
        (models.BigIntegerField(), 2**53, "9007199254740992"),
        (models.BigIntegerField(), -(2**60), str(-(2**60))),
        (models.IntegerField(), "5", 5),
        (models.DecimalField(decimal_places=2, max_digits=9), Decimal("1.5"), "1.50"),
        (models.DecimalField(decimal_places=0, max_digits=40), Decimal("1E+20"), "1" + "0" * 20),
        (models.FloatField(), float("inf"), "inf"),
        (models.BooleanField(), "1", True),
        (models.DateField(), date(2026, 1, 2), "2026-01-02"),
        (models.DateTimeField(), datetime(2026, 7, 1, 12), "2026-07-01T10:00:00+00:00"),
        (
            models.DateTimeField(),
            datetime(2026, 7, 1, 12, tzinfo=timezone(timedelta(hours=-5))),
            "2026-07-01T17:00:00+00:00",
        ),
        (models.DateTimeField(), "2026-07-01T12:00:00Z", "2026-07-01T12:00:00+00:00"),
        (models.TimeField(), time(1, 2, 3, 4), "01:02:03.000004"),
        (models.DurationField(), timedelta(days=-1, seconds=1), "-P0DT23H59M59S"),
        (models.UUIDField(), uuid.UUID(int=1), str(uuid.UUID(int=1))),
        (models.BinaryField(), b"\x00\xff", "AP8="),
        (models.JSONField(), {1: (2, None)}, {"1": [2, None]}),
        (models.CharField(), 7, "7"),
        (models.CharField(), None, None),
        (models.AutoField(primary_key=True), 7, "7"),
        (ArrayField(models.DecimalField(decimal_places=1, max_digits=5)), [1, None], ["1.0", None]),
    ],
)
def test_encoder_of_each_field_type(field, value, wire):
    assert field_encoder(field)(value) == wire


def test_foreign_keys_are_encoded_as_string_ids():
    image = RowCodec(Comment).image({"id": 3, "post_id": 7, "text": "x"})
    assert image == {"id": "3", "post": "7", "text": "x"}
    key = uuid.uuid4()
    assert RowCodec(UuidThing).image({"id": key, "name": "x"})["id"] == str(key)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("password", True),
        ("old_passwords", True),
        ("api_key", True),
        ("apikey", True),
        ("access_token", True),
        ("client_secret", True),
        ("PrivateKey".lower(), True),
        ("session_key", True),
        ("title", False),
        ("tokenizer", False),
        ("secretary", False),
        ("monkey", False),
        ("key", False),
    ],
)
def test_secret_looking_names_are_recognized(name, secret):
    assert is_secret_looking(name) is secret


def test_secret_looking_fields_are_omitted_unless_declared():
    assert set(RowCodec(Author).fields) == {"id", "name"}
    assert set(RowCodec(Author, ["password"]).fields) == {"id", "name", "password"}


def test_changed_fields():
    assert changed_fields({"a": 1, "b": 2}, {"a": 1, "b": 3}) == ("b",)
    assert changed_fields({"a": None}, {"a": None}) == ()


def test_datetime_is_encoded_in_utc():
    now = datetime.now(UTC)
    assert datetime.fromisoformat(field_encoder(models.DateTimeField())(now)) == now


def test_decimal_beyond_the_precision_of_arithmetic_is_sent_as_text():
    field = models.DecimalField(max_digits=40, decimal_places=20)
    value = "12345678901234567890.12345678901234567890"
    assert field_encoder(field)(Decimal(value)) == value

"""Filter values that a converting field of the project refuses match nothing, as they do live."""

import logging

import pytest
from django.db import connection, models
from django.test.utils import isolate_apps

from django_cocobase_realtime.filters import Row, parse
from django_cocobase_realtime.filters.orm import field_spec, to_q
from tests.app.fields import Status
from tests.app.models import Patient
from tests.support.triggers import created_tables

pytestmark = pytest.mark.django_db(transaction=True)


class EvenField(models.IntegerField):
    """Refuse odd numbers."""

    def get_prep_value(self, value):
        if value is not None and int(value) % 2:
            raise ValueError("It is odd.")
        return super().get_prep_value(value)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"value": 3}, []),
        ({"value": 4}, [4]),
        ({"value__in": [3, 4, 5]}, [4]),
        ({"value__ne": 3}, [2, 4, 6]),
        ({"value__notin": [3, 4]}, [2, 6]),
        ({"value__gt": 3}, [4, 6]),
        ({"value__lte": 3}, [2]),
        ({"value__between": [1, 5]}, [2, 4]),
    ],
)
@isolate_apps("tests.app")
def test_query_matches_the_same_rows_as_the_predicate(filters, expected):
    class Even(models.Model):
        value = EvenField()

        class Meta:
            app_label = "app"

    with created_tables(Even):
        Even.objects.bulk_create([Even(value=value) for value in (2, 4, 6)])
        schema = {"value": field_spec(Even._meta.get_field("value"))}
        filter = parse(filters, schema)
        found = Even.objects.filter(to_q(filter, Even, connection.alias)).order_by("value")
        assert list(found.values_list("value", flat=True)) == expected
        live = [value for value in (2, 4, 6) if filter.matches(Row({"value": value}, schema))]
        assert live == expected


@pytest.mark.parametrize(
    ("filters", "matches"),
    [
        ({"status": "bogus"}, False),
        ({"status__ne": "bogus"}, True),
        ({"status__in": ["open", "bogus"]}, True),
        ({"status__notin": ["open", "bogus"]}, False),
        ({"status__gt": "bogus"}, True),
        ({"status__contains": "bogus"}, False),
    ],
)
async def test_subscription_with_snapshot(realtime, api_key, settings, caplog, filters, matches):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "patients": {
                "model": "app.Patient",
                "fields": ["name", "status"],
                "filters": ["status"],
            }
        }
    }
    await Patient.objects.acreate(name="before", status=Status.OPEN)
    caplog.set_level(logging.WARNING)
    async with realtime(token=api_key) as app:
        subscribe = {"type": "subscribe", "collection": "patients", "snapshot": True}
        await app.send({**subscribe, "filters": filters})
        await app.receive("subscribed")
        page = await app.receive("snapshot")
        assert [d["data"]["name"] for d in page["documents"]] == (["before"] if matches else [])
        await Patient.objects.acreate(name="after", status=Status.OPEN)
        if matches:
            assert (await app.receive("event"))["document"]["data"]["name"] == "after"
        else:
            assert await app.receive_nothing()
    assert caplog.records == []

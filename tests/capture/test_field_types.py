"""For every type of field, the event equals the row, the snapshot and live filters."""

import os
from decimal import Decimal

import pytest
from django.db import connection, transaction
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_cocobase_realtime.declarations.registry import registry
from tests.app.models import Everything, Post
from tests.declarations.test_serialization import values
from tests.filters.strategies import rows
from tests.support.watching import (
    assert_equality_filters_agree,
    assert_log_gives_tables,
    forget_logged,
    logged,
    table_images,
    watching,
)

pytestmark = pytest.mark.django_db(transaction=True)
EXAMPLES = int(os.environ.get("EXAMPLES", "40"))


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(values, rows), min_size=2, max_size=4))
def test_event_equals_row_snapshot_and_filter(drawn):
    with watching(Everything):
        Everything.objects.all().delete()
        forget_logged()
        first, *others = drawn
        instance = Everything.objects.create(**first)
        Everything.objects.bulk_create([Everything(**other) for other in others])
        for other in others:
            for name, value in other.items():
                setattr(instance, name, value)
            instance.save()
            Everything.objects.filter(pk=instance.pk).update(**first)
            instance.save(update_fields=list(other))
        collection = registry.get("everything")
        assert_log_gives_tables()
        assert_snapshot_and_filters_agree(collection)
        with transaction.atomic():
            Everything.objects.all().delete()
        assert_log_gives_tables()


def assert_snapshot_and_filters_agree(collection):
    """Compare the last events with rows as a snapshot reads them, and with filters in SQL."""
    codec = collection.codec
    last = {change.document_id: change.after for change in logged(collection.name)}
    snapshot = {
        codec.document_id(row["id"]): codec.image(row)
        for row in Everything._base_manager.values(*codec.attnames)
    }
    assert last == snapshot == table_images(collection)
    names = ("char", "date", "decimal", "integer", "ip", "small", "time", "uuid", "moment")
    assert_equality_filters_agree(collection, last, names)


def test_value_that_the_field_refuses_to_read_is_saved_and_logged():
    """SQLite stores a decimal of any size; the ORM cannot read it."""
    outcomes = []
    for watched in ((), (Post,)):
        Post.objects.all().delete()
        with watching(*watched):
            forget_logged()
            try:
                with transaction.atomic():
                    Post.objects.create(title="t", rating=Decimal(10**12))
                outcomes.append("saved")
            except Exception as error:
                outcomes.append(type(error))
            if outcomes[-1] == "saved" and watched:
                assert [change.op for change in logged()] == ["created"]
            with connection.cursor() as cursor:
                cursor.execute("UPDATE app_post SET rating = 1")
    assert outcomes[0] == outcomes[1]

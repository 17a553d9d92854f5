"""Fields that convert what the database returns: stored as they are, decoded when they are read."""

import json

import pytest
from asgiref.sync import sync_to_async
from django.apps import apps
from django.db import models

from django_cocobase_realtime import notify_change
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.declarations.serialization import RowCodec, to_json_value
from django_cocobase_realtime.events import encode
from django_cocobase_realtime.filters import Row
from django_cocobase_realtime.models import LogEvent
from django_cocobase_realtime.pubsub.broker import Broker
from django_cocobase_realtime.testing import capture_events
from tests.app.fields import EncryptedTextField, Status
from tests.app.models import Patient, Post
from tests.support.log import read_all
from tests.support.permissions import Permission

pytestmark = pytest.mark.django_db(transaction=True)

DATA = {"name": "Ada", "diagnosis": "flu", "status": "done", "packed": "ü"}


class HasFlu(Permission):
    def has_object_permission(self, identity, patient):
        assert patient.status is Status.DONE
        return patient.diagnosis == "flu"


def patients(settings, **options):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"patients": {"model": "app.Patient", **options}}}


def create():
    return Patient.objects.create(name="Ada", diagnosis="flu", status=Status.DONE, packed="ü")


@pytest.fixture
def payloads(monkeypatch):
    """Return the messages that are sent to the channel layer."""
    sent = []
    original = Broker._enqueue

    def enqueue(self, entry):
        sent.append(entry.payload)
        original(self, entry)

    monkeypatch.setattr(Broker, "_enqueue", enqueue)
    return sent


def test_log_holds_what_the_database_holds(settings):
    patients(settings)
    patient = create()
    Patient.objects.filter(pk=patient.pk).update(diagnosis="cold")
    patient.delete()
    for event in LogEvent.objects.all():
        images = f"{event.before}{event.after}"
        assert "enc:" in images
        assert "flu" not in images
        assert "cold" not in images
    created, updated, deleted = map(registry.get("patients").decode, read_all("patients"))
    assert created.after == {"id": str(patient.id), **DATA} | {"id": created.document_id}
    assert updated.changed == ("diagnosis",)
    assert (updated.before["diagnosis"], updated.after["diagnosis"]) == ("flu", "cold")
    assert deleted.before["diagnosis"] == "cold"


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("permission", [None, HasFlu])
async def test_event_row_snapshot_and_filter_have_the_same_value(
    realtime, api_key, settings, payloads, durable, permission
):
    patients(settings, durable=durable, permission=permission)
    filters = {"diagnosis": "flu", "status": "done"}
    async with realtime(token=api_key) as client:
        await client.subscribe("patients", filters=filters)
        patient = await sync_to_async(create)()
        event = await client.receive("event")
        assert event["document"]["data"] == DATA
        await client.send(
            {
                "type": "subscribe",
                "collection": "patients",
                "subscription": "again",
                "filters": filters,
                "snapshot": True,
            }
        )
        await client.receive("subscribed")
        (document,) = (await client.receive("snapshot"))["documents"]
        assert document == {"id": str(patient.id), "data": DATA}
        await sync_to_async(Patient.objects.create)(name="x", diagnosis="cold")
        assert await client.receive_nothing()
    texts = [bytes(payload).decode() for payload in payloads]
    assert not [text for text in texts if '"flu"' in text or '"cold"' in text]
    if not durable:
        assert [text for text in texts if "enc:" in text]


async def test_replayed_event_is_decoded(realtime, api_key, settings):
    patients(settings)
    async with realtime(token=api_key) as client:
        cursor = (await client.subscribe("patients"))["cursor"]
    await sync_to_async(create)()
    async with realtime(token=api_key) as client:
        await client.subscribe("patients", since=cursor, filters={"diagnosis": "flu"})
        assert (await client.receive("event"))["document"]["data"] == DATA


@pytest.mark.parametrize("durable", [True, False])
def test_capture_events_gives_decoded_values(settings, durable):
    patients(settings, durable=durable)
    with capture_events() as events:
        patient = create()
    assert [event.after for event in events] == [{"id": str(patient.id), **DATA}]


def test_notified_deletion_is_stored_like_a_captured_one(settings):
    patients(settings)
    patient = create()
    with capture_events() as events:
        notify_change("patients", "deleted", patient)
    assert [event.before for event in events] == [{"id": str(patient.id), **DATA}]
    created, deleted = read_all("patients")
    assert deleted.before == created.after


def test_serializer_is_given_decoded_values(settings):
    patients(settings, serializer=lambda patient: {"text": patient.diagnosis})
    create()
    (event,) = read_all("patients")
    assert event.document == {"text": "flu"}


def test_value_that_the_field_refuses_is_sent_as_text_and_matches_no_condition(settings):
    patients(settings)
    collection = registry.get("patients")
    image = {"id": "1", "name": "x", "diagnosis": "plain", "status": "gone", "packed": None}
    decoded = collection.codec.decode(image, "default")
    assert decoded == image
    assert not collection.parse_trusted_filter({"status": "done"}).matches(collection.row(decoded))
    for is_decoded in (True, False):
        instance = collection.codec.to_instance(Patient, image, "default", decoded=is_decoded)
        assert "status" in instance.get_deferred_fields()


def test_member_of_an_enumeration_is_sent_by_its_value(settings):
    post = Post(title="x", status=Status.DONE, views=1)
    post.save()
    (event,) = read_all()
    assert event.after["status"] == "done"
    with capture_events() as events:
        notify_change("posts", "deleted", post)
    assert events[0].before["status"] == "done"
    assert to_json_value({"status": Status.DONE}) == {"status": "done"}
    collection = registry.get("posts")
    filter = collection.parse_trusted_filter({"status": Status.DONE})
    assert filter.matches(Row({"status": "done"}, collection.schema))
    assert filter == collection.parse_trusted_filter({"status": "done"})


def test_bytes_are_stored_as_base64(settings):
    patients(settings)
    create()
    (event,) = read_all("patients")
    assert json.loads(encode(event))["after"]["packed"] == {"bytes": "w7w="}


def test_primary_key_is_stored_as_clients_see_it():
    class Keyed(models.Model):
        key = EncryptedTextField(primary_key=True)
        text = EncryptedTextField()

        class Meta:
            app_label = "app"

    try:
        assert RowCodec(Keyed).raw_names == {"text"}
    finally:
        del apps.all_models["app"]["keyed"]
        apps.clear_cache()


class Nameless:
    """A value whose text cannot be made."""

    def __str__(self):
        raise NotImplementedError


class NamelessField(models.CharField):
    def from_db_value(self, value, expression, connection):
        return Nameless()


def test_stored_value_is_sent_if_the_text_of_the_fields_value_cannot_be_made():
    class Named(models.Model):
        name = NamelessField(max_length=20)

        class Meta:
            app_label = "app"

    try:
        decoded = RowCodec(Named).decode({"id": "1", "name": "stored"}, "default")
        assert decoded == {"id": "1", "name": "stored"}
    finally:
        del apps.all_models["app"]["named"]
        apps.clear_cache()


def test_number_in_a_binary_field_is_not_as_many_zeros():
    """`PackedField` calls `bytes(value)`, as many fields do: a large number would fill memory."""
    codec = RowCodec(Patient)
    image = {"name": "Ada", "packed": 10**7}
    assert codec.decode(image, "default")["packed"] == str(10**7)
    patient = codec.to_instance(Patient, image, "default")
    assert patient.get_deferred_fields() >= {"packed"}

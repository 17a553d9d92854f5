"""Values of related fields are made when an event is numbered, in every way of numbering."""

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.db import connection, transaction

from django_cocobase_realtime import capture_disabled
from django_cocobase_realtime.capture.triggers import install
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.events import Change, decode, encode
from django_cocobase_realtime.log import sequencer, sqlite_numbering
from django_cocobase_realtime.log.cursor import Position
from django_cocobase_realtime.log.log_reader import create_reader
from django_cocobase_realtime.log.reader import read_events
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.models import LogEvent, Stream
from tests.relations_app.models import Label, Organization, Project, Ticket
from tests.support.queries import recorded_statements
from tests.support.triggers import remove_all

pytestmark = pytest.mark.django_db(transaction=True)
FIELDS = ["title", "assignee.username", "project.labels.name"]


def declare(settings, **options):
    collection = {"model": "relations_app.Ticket", "fields": FIELDS, **options}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": collection}}


@pytest.fixture(params=["signals", "triggers"])
def _capture(request, settings, transactional_db):
    declare(settings, capture=request.param)
    if request.param == "triggers":
        for captured in registry.captured():
            install(captured)
    yield
    remove_all("default")


@pytest.fixture
def project(transactional_db):
    project = Project.objects.create(name="p")
    project.labels.set([Label.objects.create(name="x"), Label.objects.create(name="y")])
    return project


def by_statement():
    return sequence("default", "tickets")


def by_orm(monkeypatch):
    monkeypatch.setattr(sqlite_numbering, "is_supported", lambda connection: False)
    return sequence("default", "tickets")


def of_backlog(monkeypatch):
    monkeypatch.setattr(sequencer, "BACKLOG_BATCH_SIZE", 50)
    return sequence("default", "tickets", limit=2)


@pytest.fixture(params=[by_statement, by_orm, of_backlog])
def number(request, monkeypatch):
    """Return the function that numbers events, and returns those in the log."""
    arguments = () if request.param is by_statement else (monkeypatch,)

    def number(after=0):
        result = request.param(*arguments)
        stored = read_events("default", "tickets", result.epoch, after, 100)
        assert result.changes in (None, stored)
        return stored

    return number


@pytest.mark.usefixtures("_capture")
def test_values_are_stored_with_the_events(project, number):
    ada = User.objects.create(username="ada")
    ticket = Ticket.objects.create(title="a", project=project, assignee=ada)
    ticket.assignee = User.objects.create(username="grace")
    ticket.save()
    other = Ticket.objects.create()
    pk = str(ticket.pk)
    ticket.delete()
    shown = {"assignee.username": None, "project.labels.name": []}
    changes = number()
    assert [(change.op, change.document_id, change.related) for change in changes] == [
        ("created", pk, shown),
        ("updated", pk, shown),
        ("created", str(other.pk), shown),
        ("deleted", pk, shown),
    ]
    assert changes[1].changed == ("assignee", "assignee.username")
    other.project, other.assignee = project, ada
    other.save()
    (change,) = number(after=4)
    assert change.related == {"assignee.username": "ada", "project.labels.name": ["x", "y"]}
    assert change.changed == (
        "project",
        "assignee",
        "assignee.username",
        "project.labels.name",
    )


def test_batch_needs_a_query_for_each_kind_of_path(project, settings):
    declare(settings)
    ada = User.objects.create(username="ada")
    with transaction.atomic():
        for number in range(60):
            Ticket.objects.create(title=str(number), project=project, assignee=ada)
    sequence("default", "tickets")
    Ticket.objects.update(title="t")
    with recorded_statements() as statements:
        assert len(sequence("default", "tickets").changes) == 60
    assert len(statements.of("relations_app_ticket")) == 2
    with recorded_statements() as statements:
        assert sequence("default", "tickets").changes == []
    assert not statements.of("relations_app_ticket")


def test_collection_without_related_fields_needs_none(settings, project):
    declare(settings, fields=["title", "project"])
    Ticket.objects.create(project=project)
    with recorded_statements() as statements:
        (change,) = sequence("default", "tickets").changes
    assert not statements.of("relations_app_ticket")
    assert change.related is None
    assert LogEvent.objects.get(collection="tickets").related is None


def test_failing_value_does_not_keep_others_from_clients(project, settings, monkeypatch, caplog):
    declare(settings)
    for name in ("a", "b", "c"):
        Ticket.objects.create(title=name, project=project)
    from django_cocobase_realtime.declarations import related_values

    select = related_values._select
    refused = Ticket.objects.get(title="b").pk

    def fail(fields, keys, using):
        if refused in keys:
            with connection.cursor() as cursor:  # as a failing query does, in a transaction
                cursor.execute("SELECT nothing")
        return select(fields, keys, using)

    monkeypatch.setattr(related_values, "_select", fail)
    changes = sequence("default", "tickets").changes
    assert [change.related["project.labels.name"] for change in changes] == [
        ["x", "y"],
        [],
        ["x", "y"],
    ]
    assert "related fields ['assignee.username']" in caplog.text


async def test_reader_of_an_event_loop_makes_them_too(settings, project):
    declare(settings)
    await Stream.objects.acreate(collection="tickets")
    ticket = await Ticket.objects.acreate(project=project)
    reader = create_reader("default")
    try:
        position = await reader.fetch_new("tickets", None)
        batch = await reader.fetch_new("tickets", Position(position.epoch, 0))
        again = await reader.fetch_new("tickets", Position(position.epoch, 0))
    finally:
        reader.close()
    shown = {"assignee.username": None, "project.labels.name": ["x", "y"]}
    assert [(c.document_id, c.related) for c in batch.changes] == [(str(ticket.pk), shown)]
    assert again.changes == batch.changes


def test_processes_send_the_values_to_others():
    change = Change("1", "tickets", "created", "7", "1", "", related={"a.b": [None, 1]})
    assert decode(encode(change)) == change
    assert b"related" not in encode(Change("1", "tickets", "created", "7", "1", ""))


async def test_value_may_be_newer_than_the_event_but_not_older(settings, project):
    declare(settings, fields=["title", "project.name", "project.organization.name"])
    ticket = await Ticket.objects.acreate(project=project)

    def change_project():
        with capture_disabled():
            project.organization = Organization.objects.create(name="o")
            project.name = "new"
            project.save()
        return sequence("default", "tickets").changes

    (change,) = await sync_to_async(change_project)()
    assert change.document_id == str(ticket.pk)
    assert change.related == {"project.name": "new", "project.organization.name": "o"}

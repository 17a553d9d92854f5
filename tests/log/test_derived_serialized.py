"""Derived events of collections with a serializer: the document is made again."""

import contextlib
import json

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model

from django_cocobase_realtime.declarations.dependency_table import hidden_stream
from django_cocobase_realtime.log.derived import derive
from django_cocobase_realtime.models import Stream
from tests.relations_app.models import Bug, Label, Organization, Project, Ticket
from tests.support.log import read_all
from tests.support.queries import recorded_statements
from tests.support.triggers import execute, installed_triggers

pytestmark = pytest.mark.django_db(transaction=True)
User = get_user_model()


def serialize_ticket(ticket):
    project, assignee = ticket.project, ticket.assignee
    return {
        "title": ticket.title,
        "assignee": assignee and assignee.username,
        "organization": project and project.organization and project.organization.name.upper(),
        "labels": sorted(label.name for label in project.labels.all()) if project else [],
    }


def with_related(tickets):
    related = tickets.select_related("assignee", "project__organization")
    return related.prefetch_related("project__labels")


@pytest.fixture(params=["signals", "triggers"])
def declare(request, settings):
    """Declare the collection "tickets", whose writes are captured in one of the ways."""
    stack = contextlib.ExitStack()

    def declare(*depends_on, model="relations_app.Ticket", **options):
        entry = {
            "model": model,
            "serializer": serialize_ticket,
            "queryset": with_related,
            "depends_on": depends_on,
            **options,
        }
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": {"tickets": entry},
            "CAPTURE": request.param,
        }
        if request.param == "triggers":
            stack.enter_context(installed_triggers())
        derive("default")

    with stack:
        yield declare


def derived():
    """Return the changed fields and the document of each event that is derived now, by title."""
    read_all("tickets")
    seen = Stream.objects.get(collection="tickets").head
    derive("default")
    changes = [change for change in read_all("tickets") if change.seq > seen]
    assert all(change.op == "updated" and change.before == change.after for change in changes)
    return {change.after["title"]: (change.changed, change.document) for change in changes}


@pytest.fixture
def rows(transactional_db):
    """Return a user, an organization, its project and a label; two of three tickets show them."""
    ada = User.objects.create(username="ada")
    acme = Organization.objects.create(name="Acme", slug="acme")
    project = Project.objects.create(name="Website", organization=acme)
    label = Label.objects.create(name="urgent")
    project.labels.add(label)
    Ticket.objects.create(title="a", project=project, assignee=ada)
    Ticket.objects.create(title="b", project=project)
    Ticket.objects.create(title="c", project=Project.objects.create(name="Garden"))
    return ada, acme, project, label


def test_changes_of_shown_rows_make_documents_again(declare, rows):
    declare("assignee", "project.organization", "project.labels")
    ada, _, project, label = rows
    User.objects.filter(pk=ada.pk).update(username="ada.l")
    assert derived() == {
        "a": (
            ("assignee",),
            {"title": "a", "assignee": "ada.l", "organization": "ACME", "labels": ["urgent"]},
        )
    }
    Organization.objects.update(name="Other")
    events = derived()
    assert {title: changed for title, (changed, _) in events.items()} == {
        "a": ("project",),
        "b": ("project",),
    }
    assert {document["organization"] for _, document in events.values()} == {"OTHER"}
    Label.objects.filter(pk=label.pk).update(name="late")
    assert {document["labels"][0] for _, document in derived().values()} == {"late"}
    project.labels.clear()
    assert [document["labels"] for _, document in derived().values()] == [[], []]
    Project.objects.filter(pk=project.pk).update(organization=None)
    assert [document["organization"] for _, document in derived().values()] == [None, None]


def test_columns_that_do_not_matter(declare, rows):
    declare("assignee.username", "project.organization")
    ada, _, project, _ = rows
    User.objects.filter(pk=ada.pk).update(email="ada@example.com")
    Project.objects.filter(pk=project.pk).update(name="not shown")
    assert derived() == {}
    # the log does not contain this column, but it is one of the organization
    Organization.objects.update(flags={"a": 1})
    assert set(derived()) == {"a", "b"}
    User.objects.filter(pk=ada.pk).update(username="ada.l")
    assert set(derived()) == {"a"}


def test_rows_of_multi_table_children_and_sql(declare, rows):
    declare("bug")
    ticket = Ticket.objects.get(title="c")
    Bug(ticket_ptr=ticket).save_base(raw=True)
    assert set(derived()) == {"c"}
    Bug.objects.update(severity=3)
    assert set(derived()) == {"c"}


def test_rows_written_by_sql(declare, rows, settings):
    declare("project.organization")
    if settings.COCOBASE_REALTIME["CAPTURE"] == "signals":
        pytest.skip("needs triggers")
    execute("UPDATE relations_app_organization SET name = 'Raw'")
    assert {document["organization"] for _, document in derived().values()} == {"RAW"}


def test_queries_do_not_grow_with_the_documents(declare, rows):
    declare("assignee", "project.organization", "project.labels")
    ada, _, project, _ = rows
    derive("default")

    def queries(count):
        new = [Ticket(title=f"{count}-{n}", project=project, assignee=ada) for n in range(count)]
        Ticket.objects.bulk_create(new)
        read_all("tickets")
        User.objects.filter(pk=ada.pk).update(username=f"ada {count}")
        with recorded_statements() as statements:
            derive("default")
        return len(statements)

    few = queries(5)
    assert queries(100) <= few + 1  # one more statement appends the events
    names = {json.dumps(change.document["assignee"]) for change in read_all("tickets")[-106:]}
    assert names == {'"ada 100"'}


def test_nothing_is_derived_without_relations(declare, rows):
    declare("auth.User", "relations_app.Organization")
    Organization.objects.update(name="Other")
    assert derive("default") == []
    stream = Stream.objects.filter(collection=hidden_stream("default")).first()
    assert stream is None or stream.derived is None


async def test_client_that_was_away_is_sent_the_documents(declare, realtime, user):
    """No process has followed the log when the row was changed."""
    await sync_to_async(declare)("assignee")
    await Ticket.objects.acreate(title="t", assignee=user)
    async with realtime(user=user) as ada:
        first = await ada.subscribe("tickets")
    user.username = "renamed"
    await user.asave()
    async with realtime(user=user) as ada:
        since = {"since": first["cursor"], "scope": first["scope"]}
        assert (await ada.subscribe("tickets", **since))["resumed"] is True
        event = await ada.receive("event")
        assert event["document"]["data"]["assignee"] == "renamed"

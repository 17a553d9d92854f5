"""Clients get values of related rows: in events, snapshots, moves, and the SDKs' frames."""

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import User

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.log.derived import derive
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.models import LogEvent
from django_cocobase_realtime.permissions import Permission
from django_cocobase_realtime.testing import capture_events
from tests.relations_app.models import Attachment, Label, Membership, Organization, Project, Ticket
from tests.support import tickets
from tests.support.queries import recorded_statements

pytestmark = pytest.mark.django_db(transaction=True)
FIELDS = ["title", "assignee.username", "project.name", "project.labels", "project.labels.name"]


class OpenTickets(Permission):
    def has_object_permission(self, identity, ticket):
        return ticket.status == "open"


@pytest.fixture
def project(transactional_db, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"tickets": {"model": "relations_app.Ticket", "fields": FIELDS}}
    }
    project = Project.objects.create(name="p")
    project.labels.add(Label.objects.create(name="x"))
    return project


def shown(project, title, **others):
    labels = [str(label.pk) for label in project.labels.all()]
    return {
        "title": title,
        "assignee.username": None,
        "project.name": "p",
        "project.labels": labels,
        "project.labels.name": ["x"],
        **others,
    }


async def test_events_have_the_values(realtime, user, project):
    expected = await sync_to_async(shown)(project, "a")
    async with realtime(user=user) as client:
        await client.subscribe("tickets", transitions=True)
        ticket = await Ticket.objects.acreate(title="a", project=project)
        event = await client.receive("event")
        assert event["document"]["data"] == expected
        assert list(event["document"]["data"]) == FIELDS
        ticket.assignee = user
        await ticket.asave()
        event = await client.receive("event")
        assert event["document"]["data"] == {**expected, "assignee.username": "ada"}
        assert event["changed"] == ["assignee.username"]
        await ticket.adelete()
        event = await client.receive("event")
        assert event["event"] == "deleted"
        assert event["document"]["data"] == {
            "title": "a",
            "assignee.username": None,
            "project.name": None,
            "project.labels": [],
            "project.labels.name": [],
        }


async def test_clients_choose_among_the_values(realtime, user, project):
    async with realtime(user=user) as client:
        fields = ["project.name", "title"]
        await client.subscribe("tickets", fields=fields, changed=["project.name"], snapshot=True)
        await client.receive("snapshot")
        ticket = await Ticket.objects.acreate(title="a", project=project)
        event = await client.receive("event")
        assert event["document"]["data"] == {"title": "a", "project.name": "p"}
        await Ticket.objects.aupdate(title="b")
        ticket.project = await Project.objects.acreate(name="q")
        await ticket.asave(update_fields=["project"])
        event = await client.receive("event")
        assert event["document"]["data"] == {"title": "b", "project.name": "q"}
        assert event["changed"] == ["project.name"]

        async def refusal(**options):
            await client.send({"type": "subscribe", "collection": "tickets", **options})
            while (frame := await client.receive())["type"] == "event":
                pass  # derived from the new project
            return frame

        assert "project.name" in (await refusal(fields=["project.x"]))["message"]
        assert (await refusal(snapshot={"order": "project.name"}))["code"] == "bad_request"


async def test_snapshot_reads_all_values_of_a_page_at_once(realtime, user, project):
    rows = [Ticket(title=str(n), project=project, assignee=user) for n in range(30)]
    await Ticket.objects.abulk_create(rows)
    await sync_to_async(sequence)("default", "tickets")
    await sync_to_async(derive)("default")  # or it reads values, too
    expected = await sync_to_async(shown)(project, "0", **{"assignee.username": "ada"})
    async with realtime(user=user) as client:
        with recorded_statements() as statements:
            await client.subscribe("tickets", snapshot=True)
            page = await client.receive("snapshot")
        assert not page["more"]
        assert [document["data"]["title"] for document in page["documents"]] == list(
            map(str, range(30))
        )
        assert page["documents"][0]["data"] == expected
        joined = [sql for sql in statements if 'JOIN "relations_app_project"' in sql]
        assert len(joined) == 2
        # a shared snapshot
        await client.subscribe("tickets", subscription="again", snapshot=True)
        again = await client.receive("snapshot")
        assert again["documents"] == page["documents"]


async def test_row_permission_does_not_change_the_values(realtime, user, project, settings):
    declared = settings.COCOBASE_REALTIME["COLLECTIONS"]["tickets"]
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"tickets": {**declared, "permission": OpenTickets}}
    }
    await Ticket.objects.acreate(title="a", project=project)
    await Ticket.objects.acreate(title="b", status="closed")
    async with realtime(user=user) as client:
        await client.subscribe("tickets", snapshot=True)
        (document,) = (await client.receive("snapshot"))["documents"]
        assert document["data"]["project.labels.name"] == ["x"]
        await Ticket.objects.acreate(title="c", project=project)
        event = await client.receive("event")
        assert event["document"]["data"]["project.name"] == "p"


async def test_moved_documents_have_the_values(realtime, user, project, settings):
    tickets.declare(settings, fields=FIELDS)
    project.organization = await Organization.objects.acreate(name="o", slug="o")
    await project.asave()
    await Ticket.objects.acreate(title="a", project=project)
    expected = await sync_to_async(shown)(project, "a")
    async with realtime(user=user) as client:
        await client.subscribe("tickets", transitions=True, snapshot=True)
        assert (await client.receive("snapshot"))["documents"] == []
        await Membership.objects.acreate(user=user, organization=project.organization)
        (document,) = (await client.receive("moved"))["entered"]
        assert document["data"] == expected


async def test_replayed_events_have_the_values(realtime, user, project):
    async with realtime(user=user) as client:
        first = await client.subscribe("tickets")
    await Ticket.objects.acreate(title="a", project=project)
    expected = await sync_to_async(shown)(project, "a")
    async with realtime(user=user) as client:
        await client.subscribe("tickets", since=first["cursor"], scope=first["scope"])
        event = await client.receive("event")
        assert event["document"]["data"] == expected


async def test_events_without_values_get_those_of_now(realtime, user, project):
    """An older process numbered them, or the option was declared later."""
    async with realtime(user=user) as client:
        first = await client.subscribe("tickets")
    await Ticket.objects.acreate(title="a", project=project)
    await Ticket.objects.acreate(title="b")
    gone = await Ticket.objects.acreate(title="c", project=project)
    await gone.adelete()
    await sync_to_async(sequence)("default", "tickets")
    await LogEvent.objects.exclude(after__contains='"b"').aupdate(related=None)
    await LogEvent.objects.filter(after__contains='"b"').aupdate(related='{"project.name":"old"}')
    expected = await sync_to_async(shown)(project, "a")
    async with realtime(user=user) as client:
        await client.subscribe("tickets", since=first["cursor"], scope=first["scope"])
        events = [(await client.receive("event"))["document"]["data"] for _ in range(4)]
        assert events[0] == expected
        assert [data["project.name"] for data in events] == ["p", None, None, None]
        assert [data["project.labels.name"] for data in events] == [["x"], [], [], []]


async def test_sdks_get_the_values(realtime, api_key, project):
    async with realtime(path="/realtime/collections/tickets", authenticate=False) as sdk:
        await sdk.request({"api_key": api_key})
        await Ticket.objects.acreate(title="a", project=project)
        frame = await sdk.receive()
        assert frame["data"]["data"]["project.labels.name"] == ["x"]


async def test_url_of_a_file_is_shown(realtime, user, project, settings):
    settings.MEDIA_URL = "/media/"
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "files": {"model": "relations_app.Attachment", "fields": ["file", "file.url"]}
        }
    }
    ticket = await Ticket.objects.acreate()
    async with realtime(user=user) as client:
        await client.subscribe("files")
        file = await Attachment.objects.acreate(ticket=ticket, file="a.txt")
        event = await client.receive("event")
        assert event["document"]["data"] == {"file": "a.txt", "file.url": "/media/a.txt"}
        file.file = ""
        await file.asave()
        event = await client.receive("event")
        assert event["document"]["data"] == {"file": "", "file.url": None}
        assert event["changed"] == ["file", "file.url"]


def test_captured_events_have_the_values(project):
    with capture_events() as events:
        ticket = Ticket.objects.create(title="a", project=project)
        ticket.assignee = User.objects.create(username="ada")
        ticket.save()
    created, updated = events
    assert created.related["project.name"] == "p"
    assert updated.related["assignee.username"] == "ada"
    assert updated.changed == ("assignee", "assignee.username")


def test_permission_may_leave_values_out(project, settings):
    class Titles(Permission):
        def fields_for(self, identity):
            return ["title", "project.name"]

    declared = settings.COCOBASE_REALTIME["COLLECTIONS"]["tickets"]
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": {**declared, "permission": Titles}}}
    from django_cocobase_realtime.identity import Identity

    grant = registry.get("tickets").grant(Identity("user:1"), {})
    assert grant.fields == ("title", "project.name")


async def test_change_of_the_relation_itself_names_its_values(realtime, user, project, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "projects": {"model": "relations_app.Project", "fields": ["labels", "labels.name"]}
        }
    }
    label = await Label.objects.acreate(name="y")
    async with realtime(user=user) as client:
        await client.subscribe("projects")
        await project.labels.aadd(label)
        event = await client.receive("event")
        assert event["document"]["data"]["labels.name"] == ["x", "y"]
        assert sorted(event["changed"]) == ["labels", "labels.name"]

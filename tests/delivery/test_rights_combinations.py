"""Permissions with querysets that are combined with everything else that decides about rows."""

import asyncio
import contextlib
import os
import random

import pytest

from django_cocobase_realtime.delivery.topics import TopicManager
from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.permissions import Permission
from tests.relations_app.models import Membership, Organization, Project, Ticket
from tests.support import tickets
from tests.support.rights_history import History, TicketClient, wait_for_same
from tests.support.tenants import titles
from tests.support.threads import call

pytestmark = pytest.mark.django_db(transaction=True)

HISTORIES = int(os.environ.get("RIGHTS_HISTORIES", "2"))
WRITES = 10
HERE = "tests.delivery.test_rights_combinations"


class PublicProjects(Permission):
    def visible_to(self, identity):
        return {"project__in": Project.objects.filter(public=True)}


async def play(realtime, seed, history, **options):
    """Write, with one connection for each user, and check what it is shown."""
    print(f"seed {seed}")
    choose, log = random.Random(seed), []
    async with contextlib.AsyncExitStack() as stack:
        clients, tasks = [], []
        for user in history.users:
            connection = await stack.enter_async_context(realtime(user=user))
            transitions = choose.random() < 0.7
            clients.append(TicketClient(connection, user, {"transitions": transitions, **options}))
            await clients[-1].subscribe()
            tasks.append(asyncio.create_task(clients[-1].read()))
        for _ in range(WRITES):
            for _ in range(choose.choice([1, 1, 3])):
                log.append(await call(history.write))
            if choose.random() < 0.3:
                for client in clients:
                    await wait_for_same(client, history)
        for client, task in zip(clients, tasks, strict=True):
            await wait_for_same(client, history)
            assert client.find_leaks(history) == [], "\n".join(map(str, [*log, *client.frames]))
            assert not task.done()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("permission", list(tickets.COMBINED))
async def test_combined_permissions(realtime, settings, permission):
    tickets.declare(settings, permission)
    for seed in range(HISTORIES):
        await play(realtime, seed, await call(History, seed, permission))


@pytest.mark.parametrize("permission", ["MemberTickets", "NotInHiddenProjects"])
async def test_soft_deletion(realtime, settings, permission):
    tickets.declare(settings, permission, soft_delete={"status": "gone"})
    for seed in range(HISTORIES):
        history = await call(lambda seed=seed: History(seed, permission, status="open"))
        await play(realtime, seed, history)


@pytest.mark.parametrize("permission", ["MemberOrAssignee", "NotInHiddenProjects"])
async def test_filters_of_clients(realtime, settings, permission):
    tickets.declare(settings, permission, filters=["status", "project"])
    for seed in range(HISTORIES):
        history = await call(lambda seed=seed: History(seed, permission, status="open"))
        await play(realtime, seed, history, filters={"status": "open"})


@pytest.mark.parametrize("permission", ["MemberOrAssignee", "CheckedMember"])
async def test_lost_announcements(realtime, settings, permission, monkeypatch):
    """Half of the announcements of new events are lost, those of related tables included."""
    tickets.declare(settings, permission)
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "POLL": 0.1}
    choose = random.Random(1)
    for name in ("notify", "receive_announcement"):
        method = getattr(TopicManager, name)

        def announce(topics, announced, method=method):
            if choose.random() < 0.5:
                method(topics, announced)

        monkeypatch.setattr(TopicManager, name, announce)
    for seed in range(HISTORIES):
        await play(realtime, seed, await call(History, seed, permission))


async def test_two_projects_that_share_a_key_set(realtime, settings, transactional_db):
    """Keys of two projects ask for the same querysets, and see rows of their own project only."""
    tickets.declare(settings, fields=["title"], project_field="status")
    declared = settings.COCOBASE_REALTIME["COLLECTIONS"]["tickets"]
    declared["permission"] = f"{HERE}.PublicProjects"
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"tickets": declared}}
    project = await Project.objects.acreate(name="p")
    keys = {}
    for name in ("red", "blue"):
        _, keys[name] = await call(
            lambda name=name: ApiKey.objects.create_key(name, project=name),
        )
        await Ticket.objects.acreate(title=name, status=name, project=project)
    async with realtime(token=keys["red"]) as red, realtime(token=keys["blue"]) as blue:
        scopes = {}
        for name, client in (("red", red), ("blue", blue)):
            reply = await client.subscribe("tickets", transitions=True, snapshot=True)
            scopes[name] = reply["scope"], reply["cursor"]
            assert titles(await client.receive("snapshot")) == []
        assert scopes["red"][0] != scopes["blue"][0]
        await Project.objects.aupdate(public=True)
        for name, client in (("red", red), ("blue", blue)):
            assert titles(await client.receive("moved")) == [name]
        await Ticket.objects.acreate(title="both", status="red", project=project)
        await Ticket.objects.filter(title="both").aupdate(status="blue")
        assert titles(await red.receive("event")) == ["both"]
        assert (await red.receive("event"))["event"] == "left"
        assert (await blue.receive("event"))["event"] == "entered"
        await Project.objects.aupdate(public=False)
        ids = {
            name: (await client.receive("moved"))["left"]
            for name, client in (("red", red), ("blue", blue))
        }
        assert (len(ids["red"]), len(ids["blue"])) == (1, 2)
        # the scope of another project is no right to resume
        scope, cursor = scopes["red"]
        reply = await blue.subscribe("tickets", since=cursor, scope=scope, transitions=True)
        assert reply["resync"] == {"reason": "scope_changed"}


async def test_document_of_a_project_that_is_taken_away(realtime, user, settings):
    tickets.declare(settings)
    organization = await Organization.objects.acreate(name="o", slug="o")
    project = await Project.objects.acreate(name="p", organization=organization)
    ticket = await Ticket.objects.acreate(title="a", project=project)
    other = await Ticket.objects.acreate(title="b", project=project)
    async with realtime(user=user) as ada:
        await ada.subscribe("tickets", document=ticket.pk, transitions=True, snapshot=True)
        assert titles(await ada.receive("snapshot")) == []
        membership = await Membership.objects.acreate(user=user, organization=organization)
        moved = await ada.receive("moved")
        assert [document["id"] for document in moved["entered"]] == [str(ticket.pk)]
        await Ticket.objects.filter(pk=other.pk).aupdate(title="other")
        await Ticket.objects.filter(pk=ticket.pk).aupdate(title="own")
        event = await ada.receive()
        while event["type"] == "cursor":
            event = await ada.receive()
        assert titles(event) == ["own"]
        await membership.adelete()
        assert (await ada.receive("moved"))["left"] == [str(ticket.pk)]


async def test_row_permission_is_asked_about_what_a_new_right_shows(realtime, user, settings):
    tickets.declare(settings, "CheckedMember")
    organization = await Organization.objects.acreate(name="o", slug="o")
    project = await Project.objects.acreate(name="p", organization=organization)
    await Ticket.objects.acreate(title="hidden", project=project, assignee=user)
    await Ticket.objects.acreate(title="shown", project=project)
    async with realtime(user=user) as ada:
        await ada.subscribe("tickets", transitions=True, snapshot=True)
        assert titles(await ada.receive("snapshot")) == []
        membership = await Membership.objects.acreate(user=user, organization=organization)
        await ada.receive("resync")
        assert titles(await ada.receive("snapshot")) == ["shown"]
        await Ticket.objects.aupdate(status="gone")
        assert titles(await ada.receive("event")) == ["shown"]
        await membership.adelete()
        await ada.receive("resync")
        assert titles(await ada.receive("snapshot")) == []

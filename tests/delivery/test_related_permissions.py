"""Permissions that are joins: a change of a related row is followed on the open connection."""

import pytest

from tests.relations_app.models import Membership, Organization, Project, Ticket
from tests.support import tickets

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def project(transactional_db):
    return Project.objects.create(
        name="p", organization=Organization.objects.create(name="o", slug="o")
    )


def title(document):
    return document["data"]["title"]


async def test_membership_shows_and_hides_tickets(realtime, user, project, settings):
    tickets.declare(settings)
    ticket = await Ticket.objects.acreate(title="a", project=project)
    async with realtime(user=user) as ada:
        first = await ada.subscribe("tickets", transitions=True, snapshot=True)
        assert (await ada.receive("snapshot"))["documents"] == []
        membership = await Membership.objects.acreate(user=user, organization=project.organization)
        moved = await ada.receive("moved")
        assert [title(document) for document in moved["entered"]] == ["a"]
        assert moved["left"] == []
        assert moved["more"] is False
        assert moved["scope"] != first["scope"]
        await Ticket.objects.aupdate(title="b")
        event = await ada.receive("event")
        assert (event["event"], title(event["document"])) == ("updated", "b")
        await membership.adelete()
        moved = await ada.receive("moved")
        assert (moved["entered"], moved["left"]) == ([], [str(ticket.pk)])
        assert moved["scope"] == first["scope"]
        await Ticket.objects.aupdate(title="c")
        assert await ada.receive_nothing()


async def test_clients_without_transitions_load_again(realtime, user, project, settings):
    tickets.declare(settings)
    await Ticket.objects.acreate(title="a", project=project)
    async with realtime(user=user) as ada:
        await ada.subscribe("tickets", snapshot=True)
        assert (await ada.receive("snapshot"))["documents"] == []
        membership = await Membership.objects.acreate(user=user, organization=project.organization)
        resync = await ada.receive("resync")
        assert resync["reason"] == "scope_changed"
        assert list(map(title, (await ada.receive("snapshot"))["documents"])) == ["a"]
        await membership.adelete()
        await ada.receive("resync")
        assert (await ada.receive("snapshot"))["documents"] == []

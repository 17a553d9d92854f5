"""Rights that change in the moment in which a subscription starts, moves or is evaluated again."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.utils import timezone

from django_cocobase_realtime import permissions_changed
from django_cocobase_realtime.delivery import query, rights_changes
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.permissions import Permission
from tests.relations_app.models import Project
from tests.support import tickets
from tests.support.tenants import (
    Gate,
    HeldOpen,
    Tenant,
    assert_no_secret,
    hold_key_sets,
    receive_until,
    titles,
)
from tests.support.threads import call
from tests.support.tickets import MemberTickets, projects_of

pytestmark = pytest.mark.django_db(transaction=True)
HERE = "tests.delivery.test_rights_edge_cases"


class Named(Permission):
    """The tickets of projects named like the user, at a moment."""

    def visible_to(self, identity):
        projects = Project.objects.filter(name=identity.user.first_name)
        return {"project__in": projects, "title_ne": timezone.now().isoformat()}


class Joined(Permission):
    """The tickets of the projects of users who have joined."""

    def visible_to(self, identity):
        projects = projects_of(identity)
        joined = {"organization__memberships__user__date_joined__lte": timezone.now()}
        return {"project__in": projects.filter(**joined)}


class StaffSeesMore(MemberTickets):
    def fields_for(self, identity):
        return ["title", "project"] if identity.user.is_staff else ["title"]


def declare(settings, permission="tests.support.tickets.MemberTickets", **options):
    tickets.declare(settings, **options)
    settings.COCOBASE_REALTIME["COLLECTIONS"]["tickets"]["permission"] = permission
    # copied, since settings that are changed in place are not noticed
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "REVOCATION_POLL": 3600}


@pytest.fixture
def tenant(user):
    return Tenant(user)


async def test_parameter_of_a_queryset_is_no_moment(realtime, user, tenant, settings):
    """A permission with a moment asks for other projects than before."""
    declare(settings, f"{HERE}.Named")
    await type(user).objects.aupdate(first_name="lost")
    await user.arefresh_from_db()
    async with realtime(user=user) as ada:
        await ada.subscribe("tickets", transitions=True, snapshot=True)
        assert titles(await ada.receive("snapshot")) == ["lost"]
        await type(user).objects.aupdate(first_name="kept")
        await sync_to_async(permissions_changed)(user)
        moved = await ada.receive("moved")
        assert (titles(moved), moved["left"]) == (["kept"], [str(tenant.lost_ticket.pk)])


async def test_removal_while_a_queryset_with_a_moment_is_made_again(
    realtime, user, tenant, settings, monkeypatch
):
    declare(settings, f"{HERE}.Joined", depends_on=[*tickets.TABLES, "auth.User"])
    gate = hold_key_sets(monkeypatch)
    async with realtime(user=user) as ada:
        await ada.subscribe("tickets", transitions=True, snapshot=True)
        assert titles(await ada.receive("snapshot")) == ["kept", "lost"]
        await call(tenant.remove_and_write)
        await gate.wait_entered()
        await sync_to_async(permissions_changed)(user)
        moved = await ada.receive("moved")
        assert (moved["entered"], moved["left"]) == ([], [str(tenant.lost_ticket.pk)])
        gate.open()
        await call(tenant.mark)
        assert_no_secret(await receive_until(ada))


async def test_queryset_with_a_moment_is_the_same_right_later(
    realtime, user, tenant, settings, caplog
):
    declare(settings, f"{HERE}.Joined", depends_on=[*tickets.TABLES, "auth.User"])
    async with realtime(user=user) as ada:
        await ada.subscribe("tickets", transitions=True)
        query._warned.clear()
        await sync_to_async(permissions_changed)(user)
        async with asyncio.timeout(10):
            while "compares with the current time" not in caplog.text:
                await asyncio.sleep(0.01)
        await call(tenant.mark)
        assert titles(await ada.receive("event")) == ["mark"]


@pytest.mark.parametrize("suspended", [False, True])
async def test_changes_before_a_subscription_starts_are_not_taken_for_sent(
    realtime, user, tenant, settings, monkeypatch, suspended
):
    """Between its authorization and its start, keys were read, and changed again."""
    declare(settings)
    await call(tenant.remove)
    gate = hold_key_sets(monkeypatch)
    gate.open()
    third = await call(tenant.make_project, "third")
    async with realtime(user=user) as other, realtime(user=user) as ada:
        first = await other.subscribe("tickets", transitions=True)
        late = HeldOpen(monkeypatch)
        request = {"type": "subscribe", "collection": "tickets", "transitions": True}
        await ada.send({**request, "since": first["cursor"], "scope": first["scope"]})
        await late.entered.wait()
        await call(tenant.add, tenant.lost)
        assert titles(await other.receive("moved")) == ["lost"]
        gate.close()
        await call(tenant.add, third)
        await gate.wait_entered()
        if suspended:  # the permissions are evaluated again when it has started
            await sync_to_async(permissions_changed)(user)
        late.released.set()
        assert (await ada.receive("subscribed"))["scope"] == first["scope"]
        await call(tenant.remove, tenant.kept)  # touches the keys once more
        for feed in Hub.current().topics.related:
            await feed.wait_caught_up()
        gate.open()
        # its documents are those of the first scope, from which the server knows no difference
        frame = await ada.receive("resync")
        while frame["type"] != "moved":
            frame = await other.receive()
        assert frame["scope"] != first["scope"]


async def test_move_that_waits_becomes_a_resync_when_other_fields_are_readable(
    realtime, user, tenant, settings, monkeypatch
):
    declare(settings, f"{HERE}.StaffSeesMore")
    await call(tenant.remove)
    async with realtime(user=user) as ada:
        await ada.subscribe("tickets", transitions=True, snapshot=True)
        assert titles(await ada.receive("snapshot")) == ["kept"]
        gate = Gate(rights_changes.differences_as_of)
        monkeypatch.setattr(rights_changes, "differences_as_of", gate)
        await call(tenant.add, tenant.lost)
        await gate.wait_entered()
        await type(user).objects.aupdate(is_staff=True)
        await sync_to_async(permissions_changed)(user)
        gate.open()
        assert (await ada.receive("resync"))["reason"] == "scope_changed"
        documents = (await ada.receive("snapshot"))["documents"]
        assert [sorted(document["data"]) for document in documents] == [["project", "title"]] * 2


async def test_collection_without_log_does_not_send_what_was_buffered_by_old_keys(
    realtime, user, tenant, settings, monkeypatch
):
    declare(settings, durable=False)
    gate = hold_key_sets(monkeypatch)
    async with realtime(user=user) as ada:
        late = HeldOpen(monkeypatch)
        await ada.send({"type": "subscribe", "collection": "tickets"})
        await late.entered.wait()
        await call(tenant.remove)
        late.released.set()
        await ada.receive("subscribed")
        await call(tenant.write_secret)
        gate.open()
        await call(tenant.mark)
        frames = []
        with pytest.raises(AssertionError, match=r"websocket\.close"):
            while True:
                frames.append(await ada.receive())
        assert_no_secret(frames)
        assert frames[-1]["code"] == 4201

"""A query of a permission that fails, or a subscription that cannot continue, delays no others."""

import pytest
from django.db import OperationalError

from django_cocobase_realtime.delivery import rights
from tests.relations_app.models import Membership, Organization, Project, Ticket
from tests.support import tickets
from tests.support.threads import call

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def users(django_user_model, settings, monkeypatch):
    """Three members of an organization with one ticket."""
    tickets.declare(settings)
    monkeypatch.setattr(rights, "RETRY_INTERVAL", 0.05)
    organization = Organization.objects.create(name="o", slug="o")
    project = Project.objects.create(name="p", organization=organization)
    Ticket.objects.create(title="a", project=project)
    members = [django_user_model.objects.create_user(name) for name in ("ada", "ben", "cid")]
    for member in members:
        Membership.objects.create(user=member, organization=organization)
    return members


async def subscribe(client):
    await client.subscribe("tickets", transitions=True, snapshot=True)
    assert (await client.receive("snapshot"))["documents"]


def deactivate():
    Membership.objects.update(active=False)


async def test_query_that_fails_does_not_delay_others(realtime, users, monkeypatch):
    read_keys, broken = rights.read_keys, {users[1].pk}

    def read(key_sets):
        if any(broken & set(key_set.query.params) for key_set in key_sets):
            raise OperationalError("this query takes too long")
        return read_keys(key_sets)

    monkeypatch.setattr(rights, "read_keys", read)
    async with (
        realtime(user=users[0]) as ada,
        realtime(user=users[1]) as ben,
        realtime(user=users[2]) as cid,
    ):
        for client in (ada, ben, cid):
            await subscribe(client)
        await call(deactivate)
        for client in (ada, cid):
            assert (await client.receive("moved"))["left"]
        assert await ben.receive_nothing(0.2)
        broken.clear()
        assert (await ben.receive("moved"))["left"]


async def test_subscription_that_cannot_continue_ends_alone(realtime, users, monkeypatch):
    plan = rights.plan_rights_change

    def fail_for_ben(subscription, shown):
        if subscription.connection.identity.user == users[1]:
            raise RuntimeError("a bug")
        return plan(subscription, shown)

    monkeypatch.setattr(rights, "plan_rights_change", fail_for_ben)
    async with (
        realtime(user=users[0]) as ada,
        realtime(user=users[1]) as ben,
        realtime(user=users[2]) as cid,
    ):
        for client in (ada, ben, cid):
            await subscribe(client)
        await call(deactivate)
        for client in (ada, cid):
            assert (await client.receive("moved"))["left"]
        error = await ben.receive("error")
        assert (error["code"], error["subscription"]) == ("internal_error", "tickets")

"""Subscriptions that are frozen, because their keys must be read again: what else may happen."""

import asyncio

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError

from django_cocobase_realtime import permissions_changed
from django_cocobase_realtime.delivery import rights
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.relations.key_sets import KeySets
from django_cocobase_realtime.utils.transactions import write_transaction
from tests.relations_app.models import Membership, Project, Ticket
from tests.support import tickets
from tests.support.rights_history import TicketClient
from tests.support.tenants import (
    Gate,
    Tenant,
    assert_no_secret,
    documents_after,
    hold_key_sets,
    receive_until,
    titles,
    visible_documents,
    wait_noticed,
)
from tests.support.threads import call

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tenant(user, settings):
    tickets.declare(settings)
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "REVOCATION_POLL": 0.2}
    return Tenant(user)


@pytest.fixture
def gate(monkeypatch):
    """Sets are not read, and subscriptions stay frozen, until the test opens the gate."""
    return hold_key_sets(monkeypatch)


@pytest.fixture
def fast_retry(monkeypatch):
    monkeypatch.setattr(rights, "RETRY_INTERVAL", 0.05)


async def subscribe(connection, user, *, transitions=True, **options):
    """Return a client that has its snapshot."""
    client = TicketClient(connection, user, {"transitions": transitions})
    await client.subscribe(**options)
    while not client.documents:
        client.apply(await connection.receive())
    return client


async def freeze(tenant, gate):
    await call(tenant.remove_and_write)
    await gate.wait_entered()
    await wait_noticed()


async def test_others_go_on_while_one_is_frozen(realtime, tenant, user, gate, django_user_model):
    eve = await django_user_model.objects.acreate_user("eve")
    await Membership.objects.acreate(user=eve, organization=tenant.lost.organization)
    async with realtime(user=user) as ada, realtime(user=eve) as other:
        await subscribe(ada, user)
        await subscribe(other, eve)
        await freeze(tenant, gate)
        assert "secret" in str(await receive_until(other, "secret"))
        await call(lambda: Ticket.objects.filter(project=tenant.lost).update(title="later"))
        await receive_until(other, "later")
        gate.open()
        await call(tenant.mark)
        frames = await receive_until(ada)
        assert_no_secret(frames)
        assert frames[0]["type"] == "moved"


@pytest.mark.parametrize("action", ["unsubscribe", "replace", "close"])
async def test_subscription_that_ends_while_it_is_frozen(realtime, tenant, user, gate, action):
    async with realtime(user=user) as second:
        await subscribe(second, user)
        async with realtime(user=user) as ada:
            await subscribe(ada, user)
            await freeze(tenant, gate)
            match action:
                case "unsubscribe":
                    await ada.send({"type": "unsubscribe", "subscription": "tickets"})
                    assert (await ada.receive())["type"] == "unsubscribed"
                    await ada.send({"type": "ping"})
                    gate.open()
                    assert (await ada.receive())["type"] == "pong"
                    await call(tenant.mark)
                case "replace":
                    client = TicketClient(ada, user, {"transitions": False})
                    await client.subscribe()
                    gate.open()
                    await call(tenant.mark)
                    frames = await receive_until(ada)
                    assert_no_secret(frames)
                    expected = await call(visible_documents, tenant)
                    assert documents_after(client, frames) == expected
            if action == "unsubscribe":
                await receive_until(second)
                await ada.send({"type": "ping"})
                assert (await ada.receive())["type"] == "pong"
        gate.open()
        if action != "unsubscribe":
            await call(tenant.mark, "last")
            assert_no_secret(await receive_until(second, "last"))


async def test_permissions_change_while_a_subscription_is_frozen(realtime, tenant, user, gate):
    async with realtime(user=user) as ada:
        client = await subscribe(ada, user)
        await freeze(tenant, gate)
        await sync_to_async(permissions_changed)(user)
        await asyncio.sleep(0.1)
        gate.open()
        await call(tenant.mark)
        frames = await receive_until(ada)
        assert_no_secret(frames)
        assert documents_after(client, frames) == await call(visible_documents, tenant)
        assert [frame["type"] for frame in frames].count("moved") == 1


async def test_keys_are_read_while_permissions_are_evaluated(
    realtime, tenant, user, settings, monkeypatch
):
    """The subscription waits for both, and the permission refuses."""
    gate = Gate(lambda identity, filters: False)
    async with realtime(user=user) as ada:
        client = await subscribe(ada, user)
        monkeypatch.setattr(tickets.MemberTickets, "can_subscribe", gate)
        await sync_to_async(permissions_changed)(user)
        await gate.wait_entered()
        await call(tenant.remove_and_write)
        await wait_noticed()
        key_sets = Hub.current().topics.key_sets
        async with asyncio.timeout(10):
            while any(key_set.is_outdated for key_set in key_sets.find_all("default")):
                await asyncio.sleep(0.01)
        await call(tenant.mark)
        assert await ada.receive_nothing()
        gate.open()
        assert await ada.closed() == 4201
        assert "mark" not in client.documents.values()


async def test_staff_and_membership_change_in_one_transaction(realtime, tenant, user):
    def change():
        with write_transaction("default"):
            type(user).objects.filter(pk=user.pk).update(is_staff=True)
            tenant.remove_and_write()

    async with realtime(user=user) as ada:
        client = await subscribe(ada, user)
        await call(change)
        frames = [await ada.receive("moved")]
        await asyncio.sleep(0.5)  # the change of the user is noticed
        await call(tenant.mark)
        frames += await receive_until(ada)
        assert_no_secret(frames)
        assert documents_after(client, frames) == await call(visible_documents, tenant)


async def test_several_subscriptions_of_a_connection(realtime, tenant, user, gate):
    async with realtime(user=user) as ada:
        requests = [
            {"subscription": "all", "transitions": True},
            {"subscription": "titles", "fields": ["title"], "transitions": True},
            {"subscription": "plain"},
            {"subscription": "one", "document": tenant.lost_ticket.pk},
            {"subscription": "filtered", "filters": {"title": "secret"}, "transitions": True},
        ]
        for request in requests:
            await ada.subscribe("tickets", **request)
        await freeze(tenant, gate)
        gate.open()
        got = {}
        while len(got) < len(requests):
            frame = await ada.receive()
            if frame["type"] in ("moved", "resync"):
                got[frame["subscription"]] = frame["type"], frame.get("left")
        lost = [str(tenant.lost_ticket.pk)]
        assert got == {
            "all": ("moved", lost),
            "titles": ("moved", lost),
            "plain": ("resync", None),
            "one": ("resync", None),
            "filtered": ("moved", []),
        }
        await call(tenant.write_secret)
        await call(tenant.mark)
        names = set()
        while names != {"all", "titles", "plain"}:
            frame = await ada.receive()
            assert_no_secret(frame)
            if frame["type"] == "event":
                names |= set(frame["subscriptions"])


async def test_keys_that_cannot_be_read_at_first(realtime, tenant, user, gate, fast_retry):
    gate.errors = [OperationalError("away"), OperationalError("away")]
    async with realtime(user=user) as ada:
        client = await subscribe(ada, user)
        await freeze(tenant, gate)
        gate.open()
        frames = [await ada.receive("moved")]
        assert gate.errors == []
        await call(tenant.mark)
        frames += await receive_until(ada)
        assert_no_secret(frames)
        assert documents_after(client, frames) == await call(visible_documents, tenant)


async def test_search_for_touched_sets_fails(realtime, tenant, user, monkeypatch):
    def fail(*args):
        raise OperationalError("away")

    async with realtime(user=user) as ada:
        client = await subscribe(ada, user)
        monkeypatch.setattr(KeySets, "find_touched", fail)
        await call(tenant.remove_and_write)
        await call(tenant.mark)
        frames = await receive_until(ada)
        assert_no_secret(frames)
        assert documents_after(client, frames) == await call(visible_documents, tenant)


@pytest.mark.parametrize("transitions", [False, True])
async def test_set_that_outgrows_its_limit_ends_the_subscription(
    realtime, tenant, user, settings, transitions
):
    limits = {"LIMITS": {"set_keys": 3}}
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, **limits}
    organization = tenant.lost.organization
    async with realtime(user=user) as ada:
        await subscribe(ada, user, transitions=transitions)
        await Project.objects.abulk_create(
            Project(name="p", organization=organization) for _ in range(2)
        )
        resync = await ada.receive("resync")
        assert resync["reason"] == "limit_exceeded"
        assert (await ada.receive("error"))["subscription"] == "tickets"
        await call(tenant.mark)
        await ada.send({"type": "subscribe", "collection": "tickets"})
        assert (await ada.receive("error"))["code"] == "internal_error"
        # when there are fewer again, it may subscribe
        await Project.objects.filter(name="p").adelete()
        await subscribe(ada, user)
        await call(tenant.mark, "again")
        assert titles(await ada.receive("event")) == ["again"]


async def test_sdk_connection_is_closed(realtime, tenant, user, gate):
    _, key = await call(lambda: ApiKey.objects.create_key("k", user=user))
    async with realtime(path="/realtime/collections/tickets", authenticate=False) as ada:
        assert (await ada.request({"api_key": key}))["event"] == "connected"
        await call(tenant.mark, "before")
        assert "before" in str(await ada.receive())
        await freeze(tenant, gate)
        gate.open()
        assert await ada.closed() == 4201

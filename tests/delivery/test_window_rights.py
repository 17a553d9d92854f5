"""Windows of clients whose rights change."""

import pytest

from django_cocobase_realtime import permissions_changed
from tests.relations_app.models import Ticket
from tests.support import tickets
from tests.support.results import WindowClient
from tests.support.tenants import Tenant, assert_no_secret, hold_key_sets, wait_noticed
from tests.support.threads import call

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tenant(user, settings):
    tickets.declare(settings)
    return Tenant(user)


@pytest.fixture
def gate(monkeypatch):
    """Sets are not read, and subscriptions stay frozen, until the test opens the gate."""
    return hold_key_sets(monkeypatch)


async def start(connection, limit=10):
    client = WindowClient(connection, "tickets")
    await client.start({"limit": limit, "order": "title"}, fields=["title"])
    return client


async def test_right_that_is_lost_and_given_back_is_a_difference(realtime, tenant, user):
    async with realtime(user=user) as connection:
        client = await start(connection)
        assert client.values("title") == ["kept", "lost"]
        scope = client.scope
        await call(tenant.remove)
        frame = await client.receive()
        assert frame["remove"] == [str(tenant.lost_ticket.pk)]
        assert "reset" not in frame
        assert client.values("title") == ["kept"]
        assert client.scope not in (None, scope)
        await call(tenant.add, tenant.lost)
        await client.receive()
        assert client.values("title") == ["kept", "lost"]
        assert client.scope == scope


async def test_nothing_is_shown_after_a_right_was_lost(realtime, tenant, user, gate):
    async with realtime(user=user) as connection:
        client = await start(connection)
        await call(tenant.remove_and_write)
        await gate.wait_entered()
        await wait_noticed()
        gate.open()
        await call(tenant.mark)
        while "mark" not in client.values("title"):
            await client.receive()
        assert_no_secret(client.frames)
        assert client.values("title") == ["kept", "mark"]


async def test_lost_rights_make_room_for_further_rows(realtime, tenant, user):
    await call(lambda: [Ticket.objects.create(title=f"z{n}", project=tenant.kept) for n in "12"])
    async with realtime(user=user) as connection:
        client = await start(connection, limit=3)
        assert client.values("title") == ["kept", "lost", "z1"]
        await call(tenant.remove)
        await client.receive()
        assert client.values("title") == ["kept", "z1", "z2"]
        assert not client.more


async def test_client_resumes_with_the_scope_of_a_difference(realtime, tenant, user):
    async with realtime(user=user) as connection:
        client = await start(connection)
        await call(tenant.remove)
        await client.receive()
    window = {"limit": 10, "order": "title"}
    async with realtime(user=user) as connection:
        client.connection = connection
        options = {"since": client.cursor, "scope": client.scope, "fields": ["title"]}
        assert (await client.subscribe(window, **options))["resumed"]
        await client.receive()
        assert client.values("title") == ["kept"]
        await call(tenant.add, tenant.lost)
        await client.receive()
    async with realtime(user=user) as connection:
        client.connection = connection
        reply = await client.subscribe(window, **options)
        assert reply["resync"]["reason"] == "scope_changed"
        assert (await client.receive())["reset"]
        assert client.values("title") == ["kept", "lost"]


async def test_permission_that_changes_otherwise_is_a_difference(realtime, tenant, user, settings):
    tickets.declare(settings, "Assigned")
    await call(lambda: Ticket.objects.update(assignee=user))
    async with realtime(user=user) as connection:
        client = await start(connection)
        assert client.values("title") == ["kept", "lost"]
        tickets.Assigned.visible_to, visible_to = (
            lambda self, identity: {"assignee": identity.user_id, "title": "lost"},
            tickets.Assigned.visible_to,
        )
        try:
            await call(permissions_changed, user)
            await client.receive()
            assert client.values("title") == ["lost"]
        finally:
            tickets.Assigned.visible_to = visible_to


async def test_fields_that_may_not_be_read_any_more_close_the_connection(
    realtime, tenant, user, monkeypatch
):
    async with realtime(user=user) as connection:
        client = WindowClient(connection, "tickets")
        await client.start({"order": "title"}, fields=["project"])
        monkeypatch.setattr(tickets.MemberTickets, "fields_for", lambda self, identity: ["project"])
        await call(permissions_changed, user)
        assert (await connection.receive("closing"))["code"] == 4201

"""A membership ends while a snapshot, a replay or a move is under way, and while a client is away.

The clients read slowly: the server waits in the middle until they go on.
"""

import pytest

from django_cocobase_realtime.delivery import shared_snapshots
from tests.relations_app.models import Project, Ticket
from tests.support import tickets
from tests.support.rights_history import TicketClient
from tests.support.sockets import open_socket
from tests.support.tenants import (
    Tenant,
    assert_no_secret,
    documents_after,
    receive_until,
    titles,
    visible_documents,
    wait_noticed,
)
from tests.support.threads import call

pytestmark = pytest.mark.django_db(transaction=True)
MANY = 500


@pytest.fixture
def tenant(user, settings):
    tickets.declare(settings)
    declared = {**settings.COCOBASE_REALTIME, "LIMITS": {"event_bytes": 4096}}
    settings.COCOBASE_REALTIME = declared
    tenant = Tenant(user)
    Ticket.objects.bulk_create(Ticket(title="many", project=tenant.lost) for _ in range(MANY))
    return tenant


def stop_at(socket, type):
    socket.stops_reading_at = lambda frame: frame["type"] == type


def shows(socket, title):
    return any(title in titles(frame) for frame in socket.frames)


@pytest.mark.parametrize("transitions", [False, True])
@pytest.mark.parametrize("kind", ["shared", "alone"])
async def test_removal_during_snapshots(tenant, user, monkeypatch, kind, transitions):
    if kind == "alone":
        monkeypatch.setattr(shared_snapshots, "MAX_BYTES", 100)
    request = {"type": "subscribe", "collection": "tickets", "transitions": transitions}
    async with open_socket(user=user) as one, open_socket(user=user) as two:
        for socket in (one, two):
            stop_at(socket, "snapshot")
            await socket.send_frame(**request, snapshot=True)
        for socket in (one, two):
            await socket.wait_for_frame("snapshot")
        await call(tenant.remove_and_write)
        await wait_noticed()
        await call(tenant.mark)
        expected = await call(visible_documents, tenant)
        for socket in (one, two):
            assert len(socket.frames_of_type("snapshot")) == 1
            socket.reading.set()
        for socket in (one, two):
            await socket.wait_until(lambda socket=socket: shows(socket, "mark"), 20)
            assert_no_secret(socket.frames)
            client = TicketClient(None, user, {"transitions": transitions})
            assert documents_after(client, socket.frames) == expected
            assert len(socket.frames_of_type("resync")) == 1


async def test_removal_during_a_replay(realtime, tenant, user):
    async with realtime(user=user) as away:
        client = TicketClient(away, user, {"transitions": True})
        await client.subscribe()
        documents_after(client, await receive_until(away, "kept"))
        while client.cursor is None or len(client.documents) < MANY + 2:
            client.apply(await away.receive())
    await call(lambda: Ticket.objects.filter(title="many").update(title="new"))
    request = {"type": "subscribe", "collection": "tickets", "transitions": True}
    async with open_socket(user=user) as ada:
        stop_at(ada, "event")
        await ada.send_frame(**request, since=client.cursor, scope=client.scope)
        await ada.wait_for_frame("event")
        assert ada.frames_of_type("subscribed")[0]["resumed"] is True
        await call(tenant.remove_and_write)
        await wait_noticed()
        ada.reading.set()
        await ada.wait_for_frame("moved")
        await call(tenant.mark)
        await ada.wait_until(lambda: shows(ada, "mark"), 20)
        assert_no_secret(ada.frames)
        assert len(ada.frames_of_type("event")) < MANY
        assert documents_after(client, ada.frames) == await call(visible_documents, tenant)


async def test_removal_during_a_move(tenant, user):
    await call(tenant.remove)
    request = {"type": "subscribe", "collection": "tickets", "transitions": True}
    async with open_socket(user=user) as ada:
        await ada.send_frame(**request, snapshot=True)
        await ada.wait_until(lambda: shows(ada, "kept"))
        stop_at(ada, "moved")
        await call(tenant.add, tenant.lost)
        await ada.wait_for_frame("moved")
        await call(tenant.remove_and_write)
        await wait_noticed()
        ada.reading.set()
        await ada.wait_for_frame("resync")
        await call(tenant.mark)
        await ada.wait_until(lambda: shows(ada, "mark"), 20)
        assert_no_secret(ada.frames)
        (part,) = ada.frames_of_type("moved")
        assert part["more"] is True
        client = TicketClient(None, user, {"transitions": True})
        assert documents_after(client, ada.frames) == await call(visible_documents, tenant)


@pytest.mark.parametrize("toggled", [False, True])
@pytest.mark.parametrize("cut", ["before", "within", "after"])
async def test_cut_around_a_move(realtime, tenant, user, cut, toggled):
    """The client resumes by the last scope that it has; a part of a move is none."""
    await call(tenant.remove)
    client = TicketClient(None, user, {"transitions": True})
    request = {"type": "subscribe", "collection": "tickets", "transitions": True}
    async with open_socket(user=user) as ada:
        await ada.send_frame(**request, snapshot=True)
        await ada.wait_until(lambda: shows(ada, "kept"))
        client.scope = ada.frames_of_type("subscribed")[0]["scope"]
        if cut == "within":
            stop_at(ada, "moved")
        if cut != "before":
            await call(tenant.add, tenant.lost)
            await ada.wait_for_frame("moved")
        if cut == "after":
            await ada.wait_until(lambda: ada.frames_of_type("moved")[-1]["more"] is False)
        documents_after(client, ada.frames)
    if cut == "before":
        await call(tenant.add, tenant.lost)
    await call(lambda: Ticket.objects.filter(title="many").update(title="new"))
    if toggled:
        await call(tenant.remove)
        await call(lambda: Ticket.objects.filter(title="new").update(title="secret"))
        if cut == "after":
            await call(tenant.add, tenant.lost)
    async with realtime(user=user) as again:
        client.client, client._parts = again, []
        await client.subscribe(since=client.cursor, scope=client.scope)
        is_exact = toggled or cut == "after"
        assert client.frames[-1]["resumed"] is is_exact
        if not is_exact:
            assert client.frames[-1]["resync"] == {"reason": "scope_changed"}
        await call(tenant.mark)
        frames = await receive_until(again)
        assert documents_after(client, frames) == await call(visible_documents, tenant)
        if cut != "after":
            assert_no_secret(frames)


@pytest.mark.parametrize("resumes", [False, True])
async def test_removed_member_reconnects_after_a_lost_announcement(
    realtime, tenant, user, monkeypatch, resumes
):
    """Another connection of the user keeps the key set as it was before the removal."""
    topics = "django_cocobase_realtime.delivery.topics.TopicManager"
    async with realtime(user=user) as old:
        reply = await old.subscribe("tickets", transitions=True)
        since = {"since": reply["cursor"], "scope": reply["scope"]} if resumes else {}
        for name in ("notify", "receive_announcement"):
            monkeypatch.setattr(f"{topics}.{name}", lambda *args: None)
        await call(tenant.remove)
        async with realtime(user=user) as again:
            client = TicketClient(again, user, {"transitions": True})
            await client.subscribe(**since)
            frames = await receive_until(again, "kept")
            assert client.cursor is not None
            assert frames[0]["type"] == "resync"
            assert "many" not in str(frames)
            assert documents_after(client, frames) == await call(visible_documents, tenant)


async def test_row_that_is_relinked_during_a_move_is_shown_once(tenant, user):
    """The tickets of a move are moved to a project that was always visible."""
    await call(tenant.remove)
    request = {"type": "subscribe", "collection": "tickets", "transitions": True}
    async with open_socket(user=user) as ada:
        await ada.send_frame(**request, snapshot=True)
        await ada.wait_until(lambda: shows(ada, "kept"))
        stop_at(ada, "moved")
        await call(tenant.add, tenant.lost)
        await ada.wait_for_frame("moved")
        await call(lambda: Ticket.objects.filter(title="many").update(project=tenant.kept))
        await call(lambda: Project.objects.filter(pk=tenant.lost.pk).update(organization=None))
        await call(tenant.mark)
        ada.reading.set()
        await ada.wait_until(lambda: shows(ada, "mark"), 20)
        client = TicketClient(None, user, {"transitions": True})
        assert documents_after(client, ada.frames) == await call(visible_documents, tenant)

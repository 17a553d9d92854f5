"""A user with two organizations, one of which is taken away, and gates that hold the server."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

from django_cocobase_realtime.delivery import rights
from django_cocobase_realtime.delivery.topics import TopicManager
from django_cocobase_realtime.hub.hub import Hub
from tests.relations_app.models import Membership, Organization, Project, Ticket
from tests.support.rights_history import TicketClient
from tests.support.tickets import CONDITIONS

# what is written to tickets that must not be shown
SECRET = "secret"


class Tenant:
    """Two organizations with a project and a ticket each; the user is a member of both."""

    def __init__(self, user: Any) -> None:
        self.user = user
        self.kept, self.lost = (self.make_project(name) for name in ("kept", "lost"))
        self.kept_ticket, self.lost_ticket = (
            Ticket.objects.create(title=project.name, project=project)
            for project in (self.kept, self.lost)
        )
        self.add(self.kept)
        self.add(self.lost)

    def make_project(self, name: str) -> Project:
        organization = Organization.objects.create(name=name, slug=f"{name}-{self.user}")
        return Project.objects.create(name=name, organization=organization)

    def add(self, project: Project) -> None:
        Membership.objects.create(user=self.user, organization=project.organization)

    def remove(self, project: Project | None = None) -> None:
        organization = (project or self.lost).organization
        Membership.objects.filter(user=self.user, organization=organization).delete()

    def write_secret(self, count: int = 1) -> None:
        """Change the tickets that were taken away, and create others."""
        Ticket.objects.filter(project=self.lost).update(title=SECRET)
        for _ in range(count):
            Ticket.objects.create(title=SECRET, project=self.lost)

    def remove_and_write(self) -> None:
        self.remove()
        self.write_secret()

    def mark(self, title: str = "mark") -> None:
        """Write a ticket that the user may see, which comes after everything before it."""
        Ticket.objects.create(title=title, project=self.kept)


class Gate:
    """Holds a function that runs in a thread until it is opened."""

    def __init__(self, function: Any) -> None:
        self._function = function
        self._entered, self._opened = threading.Event(), threading.Event()
        # exceptions to raise, the first one first
        self.errors: list[Exception] = []

    def __call__(self, *args: Any, **options: Any) -> Any:
        self._entered.set()
        assert self._opened.wait(20)
        if self.errors:
            raise self.errors.pop(0)
        return self._function(*args, **options)

    async def wait_entered(self) -> None:
        assert await asyncio.to_thread(self._entered.wait, 10)

    def open(self) -> None:
        self._opened.set()

    def close(self) -> None:
        self._opened.clear()
        self._entered.clear()


def hold_key_sets(monkeypatch: Any) -> Gate:
    """Let outdated sets be read only when the gate is opened, so that subscriptions are frozen."""
    gate = Gate(rights.read_keys)
    monkeypatch.setattr(rights, "read_keys", gate)
    return gate


class HeldOpen:
    """Holds requests to subscribe between their authorization and their start."""

    def __init__(self, monkeypatch: Any) -> None:
        self.entered, self.released = asyncio.Event(), asyncio.Event()
        open_topic = TopicManager.open

        async def open_late(topics: TopicManager, name: str) -> Any:
            self.entered.set()
            await self.released.wait()
            return await open_topic(topics, name)

        monkeypatch.setattr(TopicManager, "open", open_late)


def titles(frame: dict[str, Any]) -> list[str]:
    """Return the titles of the documents in a frame."""
    match frame["type"]:
        case "snapshot":
            documents = frame["documents"]
        case "moved":
            documents = frame["entered"]
        case "event":
            documents = [frame["document"]]
        case _:
            return []
    return [(document.get("data") or {}).get("title") for document in documents]


async def receive_until(client: Any, title: str = "mark") -> list[dict[str, Any]]:
    """Return the frames up to that which shows a ticket with a title."""
    frames: list[dict[str, Any]] = []
    async with asyncio.timeout(20):
        while not frames or title not in titles(frames[-1]):
            frames.append(await client.receive(timeout=20))
    return frames


def assert_no_secret(frames: Any) -> None:
    assert SECRET not in json.dumps(frames)


async def wait_noticed() -> None:
    """Wait until the changes of related rows that were committed before this call are known."""
    for feed in Hub.current().topics.related:
        await feed.wait_caught_up()


def documents_after(client: TicketClient, frames: Any) -> dict[str, str]:
    """Return the titles by document id that a client has after frames."""
    for frame in frames:
        if frame["type"] in ("snapshot", "resync", "moved", "event", "cursor"):
            client.apply(frame)
    return client.documents


def visible_documents(tenant: Tenant) -> dict[str, str]:
    """Return the titles of the tickets that the ORM shows the user, by document id."""
    rows = Ticket.objects.filter(CONDITIONS["MemberTickets"](tenant.user))
    return {str(pk): title for pk, title in rows.values_list("pk", "title")}

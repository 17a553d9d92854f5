"""Random histories of tickets and memberships, and clients that check what they are shown."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from django.contrib.auth import get_user_model

from django_cocobase_realtime.utils.transactions import write_transaction
from tests.relations_app.models import Membership, Organization, Project, Ticket
from tests.support.threads import call
from tests.support.tickets import COMBINED, CONDITIONS


class History:
    """Random writes, one after the other, and what each user could see after each of them.

    The title of a ticket is the number of the write that wrote it last.
    """

    def __init__(self, seed: int, permission: str, **conditions: Any) -> None:
        Ticket.objects.all().delete()
        # what is visible must also match these
        self.conditions = conditions
        self.random = random.Random(seed)
        self.permission = permission
        self.users = [get_user_model().objects.create_user(f"u{seed}-{n}") for n in range(3)]
        self.organizations = [
            Organization.objects.create(name="o", slug=f"o{seed}-{n}") for n in range(3)
        ]
        self.projects = [
            Project.objects.create(name="p", organization=self.random.choice(self.organizations))
            for _ in range(4)
        ]
        # ids of visible tickets by the number of the last write, then by primary key of the user
        self.visible: list[dict[Any, set[str]]] = [self.read_visible()]

    @property
    def step(self) -> int:
        """The number of the next write."""
        return len(self.visible)

    def visible_to(self, user: Any) -> Any:
        """Return the tickets that a user may see now."""
        condition = {**CONDITIONS, **COMBINED}[self.permission]
        return Ticket.objects.filter(condition(user), **self.conditions)

    def read_visible(self) -> dict[Any, set[str]]:
        return {
            user.pk: set(map(str, self.visible_to(user).values_list("pk", flat=True)))
            for user in self.users
        }

    def write(self) -> str:
        """Write once, and return a description."""
        kinds = [self.ticket] * 4 + [self.membership] * 4 + [self.project, self.both]
        description = self.random.choice(kinds)()
        self.visible.append(self.read_visible())
        return f"{self.step - 1}: {description}"

    def ticket(self) -> str:
        choose, title = self.random, str(self.step)
        ticket = Ticket.objects.order_by("?").first() if choose.random() < 0.6 else None
        values = {
            "title": title,
            "project": choose.choice([*self.projects, None]),
            "assignee": choose.choice([*self.users, None]),
            "status": choose.choice(["open", "open", "gone"]),
        }
        if ticket is None:
            ticket = Ticket.objects.create(**values)
            return f"create {ticket.pk} in {ticket.project_id}"
        match choose.randrange(4):
            case 0:
                pk = ticket.pk
                ticket.delete()
                return f"delete {pk}"
            case 1:
                Ticket.objects.filter(pk=ticket.pk).update(**values)
            case 2:
                ticket.title = title
                ticket.save()
            case _:
                Ticket.objects.filter(project=ticket.project).update(title=title)
        return f"update {ticket.pk} {values}"

    def membership(self) -> str:
        choose = self.random
        user, organization = choose.choice(self.users), choose.choice(self.organizations)
        existing = Membership.objects.filter(user=user, organization=organization)
        if not existing.exists():
            active = choose.random() < 0.8
            Membership.objects.bulk_create(
                [Membership(user=user, organization=organization, active=active)]
            ) if choose.random() < 0.5 else Membership.objects.create(
                user=user, organization=organization, active=active
            )
            return f"add {user.pk} to {organization.pk}"
        if choose.random() < 0.3:
            row = existing.first()
            existing.update(active=not row.active)
            return f"toggle {user.pk} in {organization.pk}"
        existing.delete()
        return f"remove {user.pk} from {organization.pk}"

    def project(self) -> str:
        project = self.random.choice(self.projects)
        project.organization = self.random.choice([*self.organizations, None])
        project.save()
        return f"move project {project.pk} to {project.organization_id}"

    def both(self) -> str:
        with write_transaction("default"):  # it reads first
            return f"{self.membership()} and {self.ticket()}"


class TicketClient:
    """A connected client of one user, which keeps the documents that it is shown."""

    def __init__(
        self, client: Any, user: Any, options: dict[str, Any], collection: str = "tickets"
    ) -> None:
        self.client = client
        self.collection = collection
        self.user = user
        self.options = options
        # titles by document id
        self.documents: dict[str, str] = {}
        # all documents that were shown, with their titles
        self.shown: list[tuple[str, str]] = []
        self.cursor: str | None = None
        self.scope: str | None = None
        self.frames: list[dict[str, Any]] = []
        self._page: dict[str, str] = {}
        self._parts: list[dict[str, Any]] = []

    async def subscribe(self, **options: Any) -> None:
        options = {"snapshot": True, **self.options, **options}
        reply = await self.client.subscribe(self.collection, **options)
        self.scope, self.cursor = reply["scope"], reply["cursor"]
        self.frames.append(reply)
        if not reply.get("resumed"):
            self.documents = {}

    async def read(self) -> None:
        """Apply frames until the task is cancelled."""
        while True:
            self.apply(await self.client.receive(timeout=3600))

    def apply(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        match frame["type"]:
            case "snapshot":
                self._page |= {d["id"]: self._show(d) for d in frame["documents"]}
                if not frame["more"]:
                    self.documents, self._page = self._page, {}
                    self.cursor = frame["cursor"]
            case "resync":
                self.scope, self._page, self._parts = frame["scope"], {}, []
                self.cursor = frame.get("cursor")
            case "moved":
                self._parts.append(frame)
                if not frame["more"]:
                    for part in self._parts:
                        for id in part["left"]:
                            del self.documents[id]
                        self.documents |= {d["id"]: self._show(d) for d in part["entered"]}
                    self._parts = []
                    self.scope, self.cursor = frame["scope"], frame["cursor"]
            case "event":
                document, self.cursor = frame["document"], frame["cursor"]
                if frame["event"] in ("deleted", "left"):
                    self.documents.pop(document["id"], None)
                else:
                    self.documents[document["id"]] = self._show(document)
            case "cursor":
                self.cursor = frame["cursor"]
            case other:
                raise AssertionError(frame, other)

    def _show(self, document: dict[str, Any]) -> str:
        title = document["data"]["title"]
        self.shown.append((document["id"], title))
        return title

    def has(self, expected: dict[str, str]) -> bool:
        if self.options["transitions"]:
            return self.documents == expected
        return expected.items() <= self.documents.items()

    def find_leaks(self, history: History) -> list[tuple[str, str]]:
        """Return shown documents that the user could not see in that state or a later one."""
        return [
            (id, title)
            for id, title in self.shown
            if not any(id in visible[self.user.pk] for visible in history.visible[int(title) :])
        ]


async def wait_for_same(
    client: TicketClient, history: History, seconds: float = 10.0, run: Any = call
) -> None:
    """Wait until a client has the tickets that the user may see.

    ``run`` calls a function in a thread. Without transitions, a client is not sent that a ticket
    ceases to match, so it may have others.
    """

    def read() -> dict[str, str]:
        rows = history.visible_to(client.user)
        return {str(pk): title for pk, title in rows.values_list("pk", "title")}

    expected = await run(read)
    try:
        async with asyncio.timeout(seconds):
            while not client.has(expected):
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError((client.documents, expected, client.frames[-8:])) from None

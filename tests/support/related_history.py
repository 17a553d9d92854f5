"""Random writes to tables that documents show, and clients that keep these documents."""

from __future__ import annotations

import asyncio
import json
import random
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models import Model

from tests.relations_app.models import Label, Organization, Project, Ticket
from tests.support.threads import call


def serialize_ticket(ticket: Ticket) -> dict[str, Any]:
    """Return the data of a ticket, as a serializer of the project makes it."""
    project, assignee = ticket.project, ticket.assignee
    return {
        "title": ticket.title,
        "assignee": assignee and assignee.username,
        "organization": project and project.organization and project.organization.name.upper(),
        "labels": sorted(label.name for label in project.labels.all()) if project else [],
    }


def with_related(tickets: Any) -> Any:
    related = tickets.select_related("assignee", "project__organization")
    return related.prefetch_related("project__labels")


COLLECTIONS = {
    "tickets": {
        "model": "relations_app.Ticket",
        "fields": [
            "title",
            "project",
            "assignee.username",
            "project.name",
            "project.organization.name",
            "project.labels",
            "project.labels.name",
            "organization.name",
        ],
    },
    "projects": {
        "model": "relations_app.Project",
        "fields": ["name", "organization.name", "parent.name", "parent.labels.name"],
    },
    "labels": {"model": "relations_app.Label", "fields": ["name", "project.name"]},
    "organizations": {
        "model": "relations_app.Organization",
        "fields": ["name", "owner.username", "projects", "projects.name"],
    },
    "serialized": {
        "model": "relations_app.Ticket",
        "serializer": serialize_ticket,
        "queryset": with_related,
        "depends_on": ["assignee", "project.organization", "project.labels"],
    },
}


class History:
    """Random writes to all tables, by all ways of writing that capture sees."""

    def __init__(self, seed: int, *, with_sql: bool) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.with_sql = with_sql
        self.number = 0
        for model in (Ticket, Label, Project, Organization):
            model.objects.all().delete()
        for number in range(2):
            get_user_model().objects.create_user(f"u{seed}-{number}")
            Organization.objects.create(name=self.name(), slug=f"s{number}")
        for _ in range(3):
            self.create(Project)
            self.create(Label)
        for _ in range(4):
            self.create(Ticket)

    def name(self) -> str:
        self.number += 1
        return f"n{self.seed}.{self.number}"

    def one(self, model: type[Model]) -> Any:
        return self.random.choice([*model._default_manager.order_by("pk"), None])

    def values(self, model: type[Model]) -> dict[str, Any]:
        if model is Ticket:
            return {
                "title": self.name(),
                "project": self.one(Project),
                "assignee": self.one(get_user_model()),
                "organization_id": self.random.choice(["s0", "s1", "s2", None]),
            }
        if model is Project:
            return {
                "name": self.name(),
                "organization": self.one(Organization),
                "parent": self.one(Project),
            }
        if model is Organization:
            return {"name": self.name(), "owner": self.one(get_user_model())}
        return {"name": self.name()}

    def create(self, model: type[Model]) -> str:
        row = model(**self.values(model))
        if self.random.random() < 0.5:
            model._default_manager.bulk_create([row])
        else:
            row.save()
        return f"create {model.__name__}"

    def write(self) -> str:
        """Write once, and return a description."""
        model = self.random.choice([Ticket, Project, Organization, Label])
        row = self.one(model)
        if row is None or self.random.random() < 0.15:
            return self.create(model)
        match self.random.randrange(8):
            case 0:
                return self.connect()
            case 1:
                return self.connect()
            case 2:
                return self.rename_user()
            case 3 if self.random.random() < 0.6:
                row.delete()
                return f"delete {model.__name__}"
            case 4 if model is Organization:
                slug = self.random.choice(["s0", "s1", "s2"])
                if not Organization.objects.filter(slug=slug).exists():
                    row.slug = slug
                    row.save()
                return f"slug of {row.pk}"
            case 5 if self.with_sql:
                column = "title" if model is Ticket else "name"
                with connection.cursor() as cursor:
                    cursor.execute(
                        f"UPDATE {model._meta.db_table} SET {column} = %s WHERE id = %s",
                        [self.name(), row.pk],
                    )
                return f"sql {model.__name__}"
            case 6:
                for name, value in self.values(model).items():
                    setattr(row, name, value)
                row.save()
                return f"save {model.__name__}"
        model._default_manager.filter(pk=row.pk).update(**self.values(model))
        return f"update {model.__name__}"

    def rename_user(self) -> str:
        users = get_user_model().objects.all()
        users.filter(pk=self.random.choice(users).pk).update(username=self.name())
        return "rename user"

    def connect(self) -> str:
        project, label = self.one(Project), self.one(Label)
        if project is None or label is None:
            return "nothing"
        match self.random.randrange(5):
            case 0:
                project.labels.add(label)
            case 1:
                label.project_set.add(project)
            case 2:
                project.labels.remove(label)
            case 3:
                label.project_set.clear()
            case _:
                project.labels.set(self.random.sample(list(Label.objects.all()), 1))
        return "labels"


class Client:
    """The documents of one collection that a client has, over several connections."""

    def __init__(self, collection: str) -> None:
        self.collection = collection
        self.documents: dict[str, Any] = {}
        self.frames: list[dict[str, Any]] = []
        self.since: dict[str, Any] = {}
        self._page: dict[str, Any] = {}
        self._scope = ""
        self._task: asyncio.Task[None] | None = None

    async def start(self, connection: Any) -> None:
        """Subscribe on a new connection, and continue from where the last one was cut."""
        reply = await connection.subscribe(self.collection, snapshot=True, **self.since)
        self.frames.append(reply)
        self._scope = reply["scope"]
        if not reply.get("resumed"):  # the documents follow, and then a position to resume from
            self.since = {}
        self._page = {}
        self._task = asyncio.create_task(self._read(connection))

    async def _read(self, connection: Any) -> None:
        while True:
            self.apply(await connection.receive(timeout=3600))

    async def stop(self) -> None:
        assert self._task is not None
        if self._task.done():
            self._task.result()
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def apply(self, frame: dict[str, Any]) -> None:
        self.frames.append(frame)
        match frame["type"]:
            case "snapshot":
                self._page |= {d["id"]: d["data"] for d in frame["documents"]}
                if frame["more"]:
                    return
                self.documents, self._page = self._page, {}
            case "event":
                document = frame["document"]
                if frame["event"] == "deleted":
                    self.documents.pop(document["id"], None)
                else:
                    self.documents[document["id"]] = document["data"]
            case "cursor":
                pass
            case other:
                raise AssertionError(other, frame)
        if frame["type"] == "snapshot" or self.since:
            self.since = {"scope": self._scope, "since": frame["cursor"]}


async def read_snapshot(connection: Any, collection: str) -> dict[str, Any]:
    """Return the documents of a fresh snapshot."""
    await connection.subscribe(collection, snapshot=True, subscription="fresh")
    documents: dict[str, Any] = {}
    while True:
        frame = await connection.receive()
        if frame["type"] == "snapshot":
            documents |= {d["id"]: d["data"] for d in frame["documents"]}
            if not frame["more"]:
                break
    await connection.send({"type": "unsubscribe", "subscription": "fresh"})
    while (await connection.receive())["type"] != "unsubscribed":
        pass
    return documents


async def wait_for_same(client: Client, fresh: Any, seconds: float = 10.0) -> None:
    """Wait until a client has the documents of a fresh snapshot."""
    expected = await read_snapshot(fresh, client.collection)
    try:
        async with asyncio.timeout(seconds):
            while client.documents != expected:
                await asyncio.sleep(0.005)
    except TimeoutError:
        different = {
            id: (client.documents.get(id), expected.get(id))
            for id in client.documents.keys() | expected.keys()
            if client.documents.get(id) != expected.get(id)
        }
        raise AssertionError(json.dumps([different, client.frames[-6:]], indent=1)) from None


async def write_all(history: History, count: int) -> list[str]:
    """Write several times in a thread."""
    return [await call(history.write) for _ in range(count)]

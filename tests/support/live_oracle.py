"""An independent model of live queries: rows of the log's images, filtered and sorted in Python."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cmp_to_key
from typing import Any

from django.db.models import F, Func, Q, QuerySet

from django_cocobase_realtime.declarations.dependency_table import hidden_stream, label_of
from django_cocobase_realtime.events import Change
from django_cocobase_realtime.log.reader import read_events
from django_cocobase_realtime.models import Stream
from tests.app.models import Task
from tests.support.triggers import is_postgres

FIELDS = (
    "title",
    "state",
    "priority",
    "weight",
    "hours",
    "size",
    "score",
    "urgent",
    "due",
    "project",
    "owner",
)
TEXTS = ("title", "state")
MAX_SAFE_INTEGER = 2**53 - 1
# a row by names of fields, with values of Python
Row = dict[str, Any]


def convert(name: str, value: Any) -> Any:
    """Return the value of a field from its JSON; raise ``AssertionError`` if that is wrong."""
    if value is None:
        return None
    match name:
        case "id" | "project" | "owner":
            assert isinstance(value, str), (name, value)
            return int(value)
        case "priority" | "weight" | "size":
            assert type(value) in (int, str), (name, value)
            assert isinstance(value, str) == (abs(int(value)) > MAX_SAFE_INTEGER), (name, value)
            return int(value)
        case "hours":
            assert isinstance(value, str), (name, value)
            return Decimal(value)
        case "score":
            assert type(value) in (int, float), (name, value)
            return float(value)
        case "urgent" | "deleted":
            assert isinstance(value, bool), (name, value)
            return value
        case "due":
            return datetime.fromisoformat(value)
    assert isinstance(value, str), (name, value)
    return value


def convert_all(values: dict[str, Any]) -> Row:
    return {name: convert(name, value) for name, value in values.items()}


# conditions of clients


@dataclass(frozen=True)
class Condition:
    """A filter as clients send it, and the same in Python and in the ORM."""

    filters: dict[str, Any]
    matches: Callable[[Row], Any] = field(repr=False)
    q: Q = field(repr=False)


CONDITIONS = [
    Condition({}, lambda row: True, Q()),
    Condition({"state": "open"}, lambda row: row["state"] == "open", Q(state="open")),
    Condition(
        {"priority_gte": 2},
        lambda row: row["priority"] is not None and row["priority"] >= 2,
        Q(priority__gte=2),
    ),
    Condition(
        {"$not": {"hours_gt": "1"}},
        lambda row: row["hours"] is None or row["hours"] <= 1,
        Q(hours=None) | Q(hours__lte=1),
    ),
    Condition(
        {"$or": [{"title_contains": "b"}, {"urgent": True}]},
        lambda row: "b" in row["title"].lower() or row["urgent"],
        Q(title__icontains="b") | Q(urgent=True),
    ),
    Condition(
        {"score_isnull": True, "state__in": ["open", "done"]},
        lambda row: row["score"] is None and row["state"] in ("open", "done"),
        Q(score=None, state__in=["open", "done"]),
    ),
]


def in_project(id: int) -> Condition:
    """Return the condition for the tasks of a project."""
    return Condition({"project": str(id)}, lambda row: row["project"] == id, Q(project=id))


# orders and aggregates


def compare(first: Row, second: Row, order: Sequence[str]) -> int:
    """Compare two rows: below zero if the first one comes first in the order."""
    for text in order:
        name = text.removeprefix("-")
        a, b = first[name], second[name]
        if a == b:
            continue
        # nulls are lowest
        is_lower = a is None or (b is not None and a < b)
        return 1 if is_lower == text.startswith("-") else -1
    return int(first["id"] > second["id"]) - int(first["id"] < second["id"])


def in_order(rows: Iterable[Row], order: Sequence[str]) -> list[Row]:
    return sorted(rows, key=cmp_to_key(lambda a, b: compare(a, b, order)))


def aggregate(rows: Iterable[Row], query: Aggregation) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Return the groups by their keys, as `convert_group` has them."""
    groups: dict[tuple[Any, ...], list[Row]] = {} if query.group_by else {(): []}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in query.group_by), []).append(row)
    return {key: _aggregate_group(rows, query) for key, rows in groups.items()}


def _aggregate_group(rows: Sequence[Row], query: Aggregation) -> dict[str, Any]:
    def values(name: str) -> list[Any]:
        return [row[name] for row in rows if row[name] is not None]

    def total(name: str) -> Any:
        return sum(values(name)) if values(name) else None

    group: dict[str, Any] = {"count": len(rows)}
    if query.sum:
        group["sum"] = {name: total(name) for name in query.sum}
    if query.avg:
        group["avg"] = {name: (total(name), len(values(name))) for name in query.avg}
    if query.min:
        group["min"] = {name: min(values(name), default=None) for name in query.min}
    if query.max:
        group["max"] = {name: max(values(name), default=None) for name in query.max}
    return group


def convert_group(group: dict[str, Any]) -> dict[str, Any]:
    """Return a group of a frame with values of Python, without its key."""
    converted: dict[str, Any] = {"count": group["count"]}
    for name in ("sum", "min", "max"):
        if name in group:
            converted[name] = convert_all(group[name])
    if "avg" in group:
        converted["avg"] = {
            name: (convert(name, value["sum"]), value["n"]) for name, value in group["avg"].items()
        }
    return converted


# queries


@dataclass(frozen=True)
class Window:
    """A window that a client subscribes to."""

    collection: str
    condition: Condition
    order: tuple[str, ...]
    limit: int
    after: str | None = None
    fields: tuple[str, ...] | None = None
    document: int | None = None

    @property
    def request(self) -> dict[str, Any]:
        """The keys of the request."""
        window: dict[str, Any] = {"limit": self.limit}
        if self.order:
            # in one of the two forms
            window["order"] = list(self.order) if len(self.order) % 2 else ",".join(self.order)
        if self.after is not None:
            window["after"] = self.after
        request = {"filters": self.condition.filters, "window": window}
        if self.fields is not None:
            request["fields"] = list(self.fields)
        if self.document is not None:
            request["document"] = str(self.document)
        return request


@dataclass(frozen=True)
class Aggregation:
    """An aggregate that a client subscribes to."""

    collection: str
    condition: Condition
    sum: tuple[str, ...] = ()
    avg: tuple[str, ...] = ()
    min: tuple[str, ...] = ()
    max: tuple[str, ...] = ()
    group_by: tuple[str, ...] = ()
    document: int | None = None

    @property
    def request(self) -> dict[str, Any]:
        """The keys of the request."""
        names = {name: getattr(self, name) for name in ("sum", "avg", "min", "max", "group_by")}
        aggregate = {name: list(fields) for name, fields in names.items() if fields}
        request = {"filters": self.condition.filters, "aggregate": {"count": True, **aggregate}}
        if self.document is not None:
            request["document"] = str(self.document)
        return request


Query = Window | Aggregation
# the documents in order, each as its id and data, and whether there are more; or the groups
Result = Any


def evaluate(rows: Iterable[Row], query: Query, after: Row | None = None) -> Result:
    """Return the result of a query for the visible rows. ``after`` is where the page begins."""
    rows = [row for row in rows if query.condition.matches(row)]
    if query.document is not None:
        rows = [row for row in rows if row["id"] == query.document]
    if isinstance(query, Aggregation):
        return aggregate(rows, query)
    if after is not None:
        rows = [row for row in rows if compare(row, after, query.order) > 0]
    ordered = in_order(rows, query.order)
    names = FIELDS if query.fields is None else query.fields
    documents = [(row["id"], {name: row[name] for name in names}) for row in ordered]
    return documents[: query.limit], len(documents) > query.limit


# what a user may see in each collection, as a condition on a row and as one of the ORM; the
# arguments are the primary keys of the user and of the user's projects
VISIBLE: dict[str, Callable[[Row, int, Any], bool]] = {
    "tasks": lambda row, user, projects: True,
    "mine": lambda row, user, projects: row["project"] in projects or row["owner"] == user,
    "others": lambda row, user, projects: row["project"] not in projects,
}
VISIBLE_Q: dict[str, Callable[[int, Any], Q]] = {
    "tasks": lambda user, projects: Q(),
    "mine": lambda user, projects: Q(project__in=projects) | Q(owner=user),
    "others": lambda user, projects: Q(project=None) | ~Q(project__in=projects),
}


def read_numbered(stream: str) -> list[Change]:
    """Return the events of a stream that have a number."""
    row = Stream.objects.filter(collection=stream).first()
    return read_events("default", stream, row.epoch, 0, 10**6) if row else []


class LogFold:
    """The tables at each position of the log: tasks, and the projects of each user."""

    def __init__(self) -> None:
        # the rows by id at each position, by collection
        self.rows: dict[str, list[dict[int, Row]]] = {}
        # the number in the hidden stream that each position implies, by collection
        self.related: dict[str, list[int]] = {}
        for collection in VISIBLE:
            self._fold(collection)
        # the pairs of user and project at each position of the hidden stream
        self.members: list[frozenset[tuple[int, int]]] = [frozenset()]
        self._fold_members()

    def _fold(self, collection: str) -> None:
        rows: dict[int, Row] = {}
        positions: list[dict[int, Row]] = [{}]
        related = [0]
        for change in read_numbered(collection):
            assert change.seq == len(positions), change
            rows = dict(rows)
            if change.op == "deleted":
                del rows[int(change.document_id)]
            else:
                assert change.after is not None
                row = convert_all(change.after)
                rows[int(change.document_id)] = {**row, "id": int(change.document_id)}
            positions.append(rows)
            related.append(max(related[-1], change.related_seq or 0))
        self.rows[collection], self.related[collection] = positions, related

    def _fold_members(self) -> None:
        pairs: dict[str, tuple[int, int]] = {}
        for change in read_numbered(hidden_stream("default")):
            label, key = label_of(change.document_id)
            if label == "relations_app.Project_members":
                pairs.pop(key, None)
                if change.op != "deleted":
                    assert change.after is not None
                    pairs[key] = int(change.after["user"]), int(change.after["project"])
            self.members.append(frozenset(pairs.values()))

    def has(self, query: Query, seq: int) -> bool:
        """Return whether the log had reached a position when it was read."""
        return seq < len(self.rows[query.collection])

    def projects(self, user: int, related_seq: int) -> frozenset[int]:
        """Return the projects of a user at a position of the hidden stream."""
        pairs = self.members[related_seq]
        return frozenset(project for member, project in pairs if member == user)

    def visible(self, collection: str, seq: int, user: int, projects: Any) -> list[Row]:
        """Return the rows at a position that a user with these projects may see."""
        rows = self.rows[collection][seq].values()
        is_visible = VISIBLE[collection]
        return [row for row in rows if not row["deleted"] and is_visible(row, user, projects)]


# the same by SQL


def read_result(query: Query, user: Any, after: Row | None = None) -> Result:
    """Return the result of a query, as the database has it now. Windows are sorted by SQL."""
    projects = list(user.projects.values_list("pk", flat=True))
    visible = VISIBLE_Q[query.collection](user.pk, projects)
    tasks: QuerySet[Task] = Task.objects.filter(visible, query.condition.q, deleted=False)
    order = query.order if isinstance(query, Window) else ()
    tasks = tasks.order_by(*map(_sql_order, order), "pk")
    rows = [
        {"id": task.pk, **{name: _value(task, name) for name in FIELDS}}
        for task in tasks.select_related(None)
    ]
    result = evaluate(rows, query, after)
    if isinstance(query, Window) and after is None and query.document is None:
        assert [id for id, _ in result[0]] == [row["id"] for row in rows][: query.limit]
    return result


def _value(task: Task, name: str) -> Any:
    value = getattr(task, f"{name}_id" if name in ("project", "owner") else name)
    return Decimal(value) if name == "hours" and value is not None else value


def _sql_order(text: str) -> Any:
    name = text.removeprefix("-")
    column: Any = F(name)
    if name in TEXTS:
        collation = '"C"' if is_postgres() else "BINARY"
        column = Func(column, template=f"(%(expressions)s) COLLATE {collation}")
    if text.startswith("-"):
        return column.desc(nulls_last=True)
    return column.asc(nulls_first=True)

"""The documents and rooms of the server's model, with their past."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
# seconds for which a server remembers an idempotency key
KEY_LIFETIME = 300.0
TEAMS = ["x", "y"]


# documents of a window without a limit, and the largest limit
MAX_DOCUMENTS = 12


@dataclass(frozen=True)
class Aggregate:
    """The names of the fields that a subscription counts and computes by."""

    group_by: tuple[str, ...] = ()
    sum: tuple[str, ...] = ()
    avg: tuple[str, ...] = ()
    min: tuple[str, ...] = ()
    max: tuple[str, ...] = ()


@functools.total_ordering
class Place:
    """A value to sort by; null is the lowest one."""

    def __init__(self, value: Any, is_descending: bool) -> None:
        self._key = (value is not None, 0 if value is None else value)
        self._is_descending = is_descending

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self._key == other._key

    def __lt__(self, other: Place) -> bool:
        return other._key < self._key if self._is_descending else self._key < other._key


@dataclass(frozen=True)
class Query:
    """The documents that a subscription asks for, and its user."""

    user: str | None
    group: str | None = None
    fields: tuple[str, ...] | None = None
    # whether the server keeps the documents that are shown
    is_window: bool = False
    order: tuple[str, ...] = ()
    limit: int | None = None
    # cursor of a page
    after: str | None = None
    aggregate: Aggregate | None = None
    # teams whose rows the user may see
    teams: frozenset[str] = frozenset()

    @property
    def has_result(self) -> bool:
        """Whether it asks for a window or aggregates, instead of events."""
        return self.is_window or self.aggregate is not None

    def matches(self, row: Row | None) -> bool:
        """Return whether the user may see a row, and it matches the filter."""
        if row is None or row["owner"] not in (None, self.user):
            return False
        if row["team"] not in (None, *self.teams):
            return False
        return self.group is None or row["group"] == self.group

    def data(self, row: Row) -> dict[str, Any]:
        """Return the fields of a row that the query asks for."""
        fields = self.fields or ("n", "title", "group")
        return {name: row[name] for name in fields}

    def sort(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows that match, in order."""
        matching = [row for row in rows if self.matches(row)]
        return sorted(matching, key=lambda row: self._place(self._values(row), row["id"]))

    def documents(self, rows: Mapping[str, Row]) -> list[list[Any]]:
        """Return the documents of a fresh list."""
        if self.is_window:
            return self.result(rows)["documents"]
        return [[row["id"], self.data(row)] for row in self.sort(rows.values())]

    def result(self, rows: Mapping[str, Row]) -> dict[str, Any]:
        """Return what a client shows: of a window ``documents``, ``more`` and ``next``.

        Of aggregates ``value`` and ``groups``.
        """
        matching = self.sort(rows.values())
        if self.aggregate is not None:
            groups = self._groups(self.aggregate, matching)
            return {"value": sum(group["count"] for group in groups), "groups": groups}
        if self.after is not None:
            _, values, id = json.loads(self.after)
            place = self._place(values, id)
            matching = [r for r in matching if self._place(self._values(r), r["id"]) > place]
        limit = self.limit or MAX_DOCUMENTS
        shown, more = matching[:limit], len(matching) > limit
        documents = [[row["id"], self.data(row)] for row in shown]
        return {
            "documents": documents,
            "more": more,
            "next": self.cursor_after(shown[-1]) if more else None,
        }

    def cursor_after(self, row: Row) -> str:
        """Return the cursor of the page behind a row."""
        return json.dumps([self.order, self._values(row), row["id"]])

    def is_valid(self) -> bool:
        """Return whether the page belongs to the order."""
        return self.after is None or json.loads(self.after)[0] == list(self.order)

    def _values(self, row: Row) -> list[Any]:
        return [row[name.removeprefix("-")] for name in self.order]

    def _place(self, values: list[Any], id: str) -> tuple[Any, ...]:
        pairs = zip(self.order, values, strict=True)
        return (*(Place(value, name.startswith("-")) for name, value in pairs), int(id))

    def _groups(self, aggregate: Aggregate, rows: list[Row]) -> list[dict[str, Any]]:
        """Return groups, sorted by their keys, as a client shows them."""
        members: dict[str, list[Row]] = {}
        for row in rows:
            key = json.dumps({name: row[name] for name in aggregate.group_by})
            members.setdefault(key, []).append(row)
        if not aggregate.group_by:
            members.setdefault("{}", [])
        groups = []
        for key, in_group in sorted(members.items()):
            group: dict[str, Any] = {"count": len(in_group)}
            if aggregate.group_by:
                group["key"] = json.loads(key)
            for kind, function in (("sum", sum), ("avg", _average), ("min", min), ("max", max)):
                for name in getattr(aggregate, kind):
                    values = [row[name] for row in in_group if row[name] is not None]
                    group.setdefault(kind, {})[name] = function(values) if values else None
            groups.append(group)
        return groups


def _average(values: list[Any]) -> float:
    return float(sum(values)) / len(values)


@dataclass
class Change:
    """One entry of the log, which has no row if the rights have changed."""

    position: int
    before: Row | None
    after: Row | None


class Table:
    """The rows of a collection, with all their earlier versions."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        # the rows after each change; the first before all of them
        self.versions: list[Mapping[str, Row]] = [{}]
        # the teams whose rows users may see in each version
        self.rights: list[frozenset[str]] = [frozenset()]
        self.log: list[Change] = []
        # changes with this position or an earlier one are no longer in the log
        self.forgotten = 0
        # part of each cursor; another one after a restore
        self.epoch = 1
        self._ids = itertools.count(1)

    @property
    def head(self) -> int:
        return len(self.log)

    def new_id(self) -> str:
        return str(next(self._ids))

    def write(self, id: str, row: Row | None) -> Change:
        """Create, replace or delete a row."""
        change = Change(self.head + 1, self.rows.get(id), row)
        if row is None:
            del self.rows[id]
        else:
            self.rows[id] = row
        self._append(change, self.rights[-1])
        return change

    def grant(self, teams: frozenset[str]) -> None:
        """Let users see the rows of these teams, and of no others."""
        self._append(Change(self.head + 1, None, None), teams)

    def _append(self, change: Change, rights: frozenset[str]) -> None:
        self.log.append(change)
        self.versions.append(dict(self.rows))
        self.rights.append(rights)

    def cursor(self, position: int) -> str:
        return f"{self.epoch}:{position}"


@dataclass
class Broadcast:
    """One broadcast."""

    position: int
    message: Any
    sender: str | None
    at: float


@dataclass
class RoomData:
    """A room: its members, its broadcasts, and the idempotency keys that it remembers."""

    name: str
    keeps_history: bool
    # states of the members by id
    members: dict[str, Any] = field(default_factory=dict)
    broadcasts: list[Broadcast] = field(default_factory=list)
    keys: dict[str, float] = field(default_factory=dict)

    def publish(
        self, message: Any, sender: str | None, key: str | None, now: float
    ) -> Broadcast | None:
        """Add a broadcast; return None if the key was used in the last five minutes."""
        if key is not None:
            used = self.keys.get(key)
            if used is not None and now - used < KEY_LIFETIME:
                return None
            self.keys[key] = now
        broadcast = Broadcast(len(self.broadcasts) + 1, message, sender, now)
        self.broadcasts.append(broadcast)
        return broadcast

    def member_list(self) -> list[dict[str, Any]]:
        return [{"id": id, "name": id, "state": state} for id, state in self.members.items()]

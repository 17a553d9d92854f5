"""The documents and rooms of the server's model, with their past."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Row = Mapping[str, Any]
# seconds for which a server remembers an idempotency key
KEY_LIFETIME = 300.0
TEAMS = ["x", "y"]


@dataclass(frozen=True)
class Query:
    """The documents that a subscription asks for, and its user."""

    user: str | None
    group: str | None = None
    fields: tuple[str, ...] | None = None
    order: str | None = None
    limit: int | None = None
    # teams whose rows the user may see
    teams: frozenset[str] = frozenset()

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

    def sort(self, rows: Iterator[Row]) -> list[Row]:
        """Return the rows that match, in order."""
        matching = sorted(
            (row for row in rows if self.matches(row)), key=lambda row: int(row["id"])
        )
        if self.order is not None:
            name = self.order.removeprefix("-")
            matching.sort(key=lambda row: row[name], reverse=False)
            if self.order.startswith("-"):
                groups = itertools.groupby(matching, key=lambda row: row[name])
                matching = [
                    row for group in reversed([list(rows) for _, rows in groups]) for row in group
                ]
        return matching

    def documents(self, rows: Mapping[str, Row]) -> list[list[Any]]:
        """Return the documents of a fresh list."""
        matching = self.sort(iter(rows.values()))
        return [[row["id"], self.data(row)] for row in matching[: self.limit]]


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

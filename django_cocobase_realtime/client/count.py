"""The number of documents that match a filter, and aggregates of their values, kept up to date."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .errors import RealtimeError
from .frozen import FrozenDict, freeze
from .interfaces import Frame
from .store import Store
from .subscription import Subscribe
from .validation import check_names, encode

# options that name fields
AGGREGATE_OPTIONS = ("group_by", "sum", "avg", "min", "max")
# options that `Count.update` replaces
OPTIONS = frozenset({"filters", "document", *AGGREGATE_OPTIONS})

# one name of a field, or several
Names = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class Group:
    """The documents that have the same values of the fields in ``group_by``."""

    # these values by field; empty without `group_by`
    key: Mapping[str, Any] = field(default_factory=FrozenDict)
    # number of documents
    count: int = 0
    # results by field, as JSON values in documents are: decimals as strings; None without values
    sum: Mapping[str, Any] = field(default_factory=FrozenDict)
    # averages by field; None without values
    avg: Mapping[str, float | None] = field(default_factory=FrozenDict)
    min: Mapping[str, Any] = field(default_factory=FrozenDict)
    max: Mapping[str, Any] = field(default_factory=FrozenDict)

    @classmethod
    def from_frame(cls, group: Mapping[str, Any]) -> Group:
        """Return a group of an ``aggregate`` frame."""
        averages = {name: _divide(**parts) for name, parts in group.get("avg", {}).items()}
        others = {name: freeze(group.get(name, {})) for name in ("key", "sum", "min", "max")}
        return cls(count=group["count"], avg=FrozenDict(averages), **others)


Groups = tuple[Group, ...]


class Count(Store[Group]):
    """The number of documents that match a filter, and aggregates of their values.

    The server keeps them. Its frames have the groups that have changed.
    """

    def __init__(
        self,
        subscribe: Subscribe,
        collection: str,
        options: Mapping[str, Any],
        *,
        on_error: Callable[[RealtimeError], None],
        on_mistake: Callable[[RealtimeError], None],
    ) -> None:
        # the number of documents in all groups; None before it is known
        self._total: int | None = None
        super().__init__(on_error=on_error, on_mistake=on_mistake)
        self._subscription = subscribe(collection, _create_request(options, {}), self)

    @property
    def value(self) -> int | None:
        """The number of matching documents, in all groups; None before it is known."""
        return self._total

    @property
    def groups(self) -> Groups:
        """The groups. It is the same tuple object until something changes.

        Without ``group_by`` there is one group of all documents.
        """
        return self._value

    async def update(self, **options: Any) -> None:
        """Replace some of the options of `Realtime.count`, such as ``filters`` or ``group_by``.

        The old value stays until the new one has arrived. None stands for the default. Raises
        ``TypeError`` or ``ValueError`` for other names and for values that are not JSON. If the
        server refuses the new options, raises `RealtimeError`, and the old ones stay.
        """
        check_names(options, OPTIONS)
        aggregate = self._subscription.options["aggregate"]
        await self._update(_create_request(options, aggregate))

    # called by the subscription

    def on_result(self, parts: list[Frame]) -> None:
        """Replace, add or remove groups."""
        if parts[0].get("reset"):
            self._items = {}
        groups = self._edit()
        for part in parts:
            for frame in part["groups"]:
                key, group = encode(frame.get("key")), Group.from_frame(frame)
                if group.count or "key" not in frame:
                    groups[key] = group
                else:
                    groups.pop(key, None)
        self._total = sum(group.count for group in groups.values())

    # internal

    @property
    def _detail(self) -> object:
        return self._total

    def _clear(self) -> None:
        super()._clear()
        self._total = None


def _create_request(options: Mapping[str, Any], aggregate: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys of a ``subscribe`` frame; ``aggregate`` has the present names of fields."""
    given = {name: options[name] for name in AGGREGATE_OPTIONS if name in options}
    names = {**aggregate, **{name: _list(value) for name, value in given.items()}}
    request = {name: value for name, value in options.items() if name not in AGGREGATE_OPTIONS}
    aggregate = {name: value for name, value in names.items() if value is not None}
    return {**request, "aggregate": {"count": True, **aggregate}}


def _list(names: Names | None) -> list[str] | None:
    """Return one name or several as a list."""
    if names is None:
        return None
    return [names] if isinstance(names, str) else list(names)


def _divide(sum: Any, n: int) -> float | None:
    """Return an average. A sum may be a string, if it is a decimal or beyond 2^53."""
    return float(sum) / n if n else None

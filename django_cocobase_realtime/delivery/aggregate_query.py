"""The state of a live query for aggregates: reads them, and makes their frames."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Any, NamedTuple

from ..conf import conf
from ..declarations.collection import Collection
from ..filters import Filter
from ..live_queries.aggregates import aggregates_as_of
from ..live_queries.fold import Fold, GroupKey
from ..live_queries.queries import AggregateQuery
from ..log.cursor import Position
from ..utils.json_text import encode_json
from ..utils.repeated_log import omitted_text, repeated_log
from ..wire.result_frames import ResultEnd, aggregate_parts
from .live_query import ResultForm, ResultState, RowChange

logger = logging.getLogger(__name__)

_serials = count(1)


class _Read(NamedTuple):
    """Aggregates that were read."""

    fold: Fold
    position: Position | None
    # the groups that were read; None for all
    groups: tuple[GroupKey, ...] | None


class _Group(NamedTuple):
    """A group in a result."""

    # values that make the group, as in documents; None if there are no groups
    key: Mapping[str, Any] | None
    # the group in frames
    encoded: bytes


class AggregateResult:
    """The groups at one position."""

    __slots__ = ("changed", "groups", "predecessor", "serial")

    def __init__(
        self, groups: Mapping[GroupKey, _Group], predecessor: int, changed: Iterable[GroupKey]
    ) -> None:
        self.groups = groups
        self.serial = next(_serials)
        # serial number of the result before this one, and the keys of groups that may differ
        self.predecessor = predecessor
        self.changed = changed

    def keys_changed_since(self, old: AggregateResult) -> Iterable[GroupKey]:
        """Return the keys of groups that may differ from those of another result."""
        if old is self:
            return ()
        if old.serial == self.predecessor:
            return self.changed
        return dict.fromkeys((*old.groups, *self.groups))


class AggregateState(ResultState[AggregateResult]):
    """The aggregates of a query."""

    # number of results in this process that were different when they were counted again
    differences = 0

    def __init__(self, collection: Collection, query: AggregateQuery) -> None:
        self._collection = collection
        self._query = query
        self._fold = Fold(query, collection.schema)
        # whether all rows must be counted
        self._must_load = True
        # the last result, and the keys of groups that may differ from it
        self._result = AggregateResult({}, 0, ())
        self._changed: dict[GroupKey, None] = {}
        # number of groups that the limit allows
        self._max_groups = 0
        # the position at which counting again must lead to the same aggregates
        self._verified_at: Position | None = None

    @property
    def is_incomplete(self) -> bool:
        """Whether aggregates must be read."""
        return self._must_load or bool(self._fold.needs)

    @property
    def is_exact(self) -> bool:
        """Return True: a count of the rows as they are now may contain changes that follow."""
        return True

    @property
    def size(self) -> int:
        """Bytes of the groups in frames."""
        groups = self.result(ResultForm("")).groups
        return sum(len(group.encoded) for group in groups.values())

    def set_forms(self, forms: list[ResultForm]) -> None:
        """Do nothing: all forms need the same."""

    def invalidate(self) -> None:
        """Have all rows counted again."""
        self._must_load = True

    def verify(self, position: Position) -> None:
        """Have all rows counted again, and report if the aggregates at this position differ."""
        if not self.is_incomplete:
            self._must_load = True
            self._verified_at = position

    def apply(self, change: RowChange) -> None:
        """Apply a change of a row."""
        if change.is_partial:
            self.invalidate()
            return
        self._changed |= dict.fromkeys(self._fold.apply(change.before, change.after))
        if len(self._fold) > self._max_groups:
            self.invalidate()  # reading them raises the exception

    def reader(self, filter: Filter) -> Callable[[Position | None], _Read]:
        """Return a function that counts all rows, or reads the groups with unknown extremes."""
        groups = None if self._must_load else tuple(self._fold.needs)
        return partial(self._read, filter, groups)

    def complete(self, value: _Read) -> None:
        """Take the aggregates that were read."""
        if value.groups is not None:
            self._changed |= dict.fromkeys(value.groups)
            self._fold.take(value.fold, value.groups)
            return
        if self._verified_at is not None and self._verified_at == value.position:
            self._report(self._fold.differences(value.fold))
        self._verified_at = None
        self._must_load = False
        self._changed |= dict.fromkeys((*self._fold, *value.fold, *self._result.groups))
        self._fold = value.fold

    def _report(self, different: Iterable[GroupKey]) -> None:
        """Log that groups have changed which should be the same."""
        if not different:
            return
        AggregateState.differences += 1
        omitted = repeated_log.admit(("aggregates", self._collection.name))
        if omitted is not None:
            logger.error(
                "Aggregates of collection %r were not those of its rows, and were corrected. Rows "
                "were probably changed in a way that is not captured.%s",
                self._collection.name,
                omitted_text(omitted),
            )

    def result(self, form: ResultForm) -> AggregateResult:
        """Return all groups."""
        if self._changed:
            groups = dict(self._result.groups)
            changed, self._changed = self._changed, {}
            for key in changed:
                result = self._fold.result(key)
                if result is None:
                    groups.pop(key, None)
                else:
                    groups[key] = _Group(result.get("key"), encode_json(result))
            self._result = AggregateResult(groups, self._result.serial, changed)
        return self._result

    def frames(
        self, form: ResultForm, old: AggregateResult | None, new: AggregateResult, end: ResultEnd
    ) -> Iterator[str]:
        """Yield the frames with the groups that differ, or with all of them."""
        if old is None:
            parts = [group.encoded for group in new.groups.values()]
        else:
            parts = list(_differences(old, new))
        if old is None or parts or end.is_required:
            yield from aggregate_parts(
                form.subscription,
                parts,
                reset=old is None,
                end=end,
                max_bytes=conf.limits.event_bytes,
            )

    # in worker threads

    def _read(
        self, filter: Filter, groups: tuple[GroupKey, ...] | None, position: Position | None
    ) -> _Read:
        self._max_groups = max_groups = conf.limits.groups
        fold = aggregates_as_of(
            self._collection, filter, self._query, position, max_groups=max_groups, groups=groups
        )
        return _Read(fold, position, groups)


def _differences(old: AggregateResult, new: AggregateResult) -> Iterator[bytes]:
    """Yield the groups of a result that differ from those of an older one, encoded."""
    for key in new.keys_changed_since(old):
        before, after = old.groups.get(key), new.groups.get(key)
        if after is not None:
            if before is None or before.encoded != after.encoded:
                yield after.encoded
        elif before is not None:
            yield encode_json({"key": before.key, "count": 0})

"""Aggregates of rows that match a filter, kept up to date from the rows before and after changes.

Sums are exact: of Python's integers, and of decimals that are not rounded to a context. Values that
are null, or not valid for their field, are not counted in them. If the minimum or maximum of a
group leaves, the next one is not known, so that the group must be read from the database (`needs`).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping
from typing import Any

from ..filters import Row, Schema
from ..utils.json_text import encode_json
from .field_values import AggregatedField, FieldValues, ReadValues, aggregated_field
from .queries import AggregateQuery

# the values of the fields in `AggregateQuery.group_by`, as keys (see `filters.schema.key_of`)
GroupKey = tuple[Hashable, ...]
# the key of the only group, if a query has no `group_by`
ONLY_GROUP: GroupKey = ()
_ONLY = (ONLY_GROUP,)
_NONE: tuple[GroupKey, ...] = ()


class Inconsistent(Exception):
    """A change does not fit the rows that were counted; they must be counted again."""


class TooManyGroups(Exception):
    """The rows have more groups than allowed."""


class _Group:
    """The rows of one group."""

    __slots__ = ("count", "key", "values")

    def __init__(self, key: Mapping[str, Any] | None, fields: Iterable[AggregatedField]) -> None:
        # values of the fields that make the groups, as in documents; None without such fields
        self.key = key
        # number of rows
        self.count = 0
        # in the order of the query's fields
        self.values = [FieldValues(field) for field in fields]

    @property
    def state(self) -> tuple[Any, ...]:
        """The count and all values, to compare them with those of another reading."""
        return (self.count, *(values.state for values in self.values))


class Fold:
    """The aggregates of one query, for the rows that match its filter."""

    __slots__ = ("_fields", "_group_refs", "_groups", "_is_count", "_query", "_schema", "needs")

    def __init__(self, query: AggregateQuery, schema: Schema) -> None:
        self._query = query
        self._schema = schema
        names = dict.fromkeys((*query.sum, *query.avg, *query.min, *query.max))
        self._fields = [aggregated_field(query, schema[name]) for name in names]
        self._group_refs = [schema[name].ref for name in query.group_by]
        # whether there is nothing but one number of rows
        self._is_count = not names and not query.group_by
        self._groups: dict[GroupKey, _Group] = {}
        # groups whose least or greatest value is unknown
        self.needs: set[GroupKey] = set()
        if not query.group_by:
            self._groups[ONLY_GROUP] = _Group(None, self._fields)

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[GroupKey]:
        return iter(self._groups)

    @property
    def count(self) -> int:
        """The number of rows in all groups."""
        return sum(group.count for group in self._groups.values())

    # changes

    def apply(self, before: Row | None, after: Row | None) -> Collection[GroupKey]:
        """Take a change into account, and return the keys of the groups that differ.

        ``before`` and ``after`` are the row before and after the change if it matches the filter
        then. Raises `Inconsistent` if the row before was not counted.
        """
        if not self._is_count:
            return self._apply(before, after)
        if (before is None) is (after is None):
            return _NONE
        group = self._groups[ONLY_GROUP]
        group.count += 1 if before is None else -1
        if group.count < 0:
            raise Inconsistent("Fewer rows than none.")
        return _ONLY

    def _apply(self, before: Row | None, after: Row | None) -> Collection[GroupKey]:
        old = None if before is None else self.key(before)
        new = None if after is None else self.key(after)
        if old == new:
            if old is None:
                return _NONE
            return (old,) if self._change(old, before, after, 0) else _NONE
        changed = []
        if old is not None:
            self._change(old, before, None, -1)
            changed.append(old)
        if new is not None:
            self._change(new, None, after, 1)
            changed.append(new)
        return changed

    def key(self, row: Row) -> GroupKey:
        """Return the key of the group to which a row belongs."""
        key = tuple([row.key(ref) for ref in self._group_refs])
        return self._with_invalid(row, key) if None in key else key

    def _with_invalid(self, row: Row, key: GroupKey) -> GroupKey:
        """Return the key of a group with values that are null, or not valid for their field."""
        return tuple(
            part if part is not None else _key_of_invalid(row.raw(ref))
            for part, ref in zip(key, self._group_refs, strict=True)
        )

    def _change(
        self, key: GroupKey, before: Row | None, after: Row | None, difference: int
    ) -> bool:
        """Replace a row in a group, and return whether the aggregates have changed."""
        group = self._groups.get(key)
        if group is None:
            if after is None or before is not None:
                raise Inconsistent("There is no such group.")
            group = self._groups[key] = self._new_group(after)
        group.count = count = group.count + difference
        has_changed = difference != 0
        if self._fields and self._change_values(key, group, before, after):
            has_changed = True
        if count < 0:
            raise Inconsistent("Fewer rows than none.")
        if not count and self._group_refs:
            del self._groups[key]
            self.needs.discard(key)
        return has_changed

    def _change_values(
        self, key: GroupKey, group: _Group, before: Row | None, after: Row | None
    ) -> bool:
        """Replace the values of a row in a group, and return whether the aggregates differ."""
        has_changed = False
        for field, values in zip(self._fields, group.values, strict=True):
            ref = field.ref
            old = None if before is None else before.get(ref)
            new = raw = None
            if after is not None:
                new, raw = after.get(ref), after.raw(ref)
            differs, is_unknown = field.change(values, old, new, raw)
            if differs:
                has_changed = True
            if is_unknown:
                self.needs.add(key)
            if values.n < 0:
                raise Inconsistent("Fewer values than none.")
        return has_changed

    def _new_group(self, row: Row) -> _Group:
        key = None
        if self._group_refs:
            key = {ref[0]: row.raw(ref) for ref in self._group_refs}
        return _Group(key, self._fields)

    # results of queries

    def add_read(
        self, key: Mapping[str, Any], count: int, values: Mapping[str, ReadValues]
    ) -> None:
        """Add rows that a query has aggregated. ``key`` is that of their group, as in documents.

        Rows of one group may be added in several parts.
        """
        row = Row(key, self._schema)
        group_key = self.key(row)
        group = self._groups.get(group_key)
        if group is None:
            group = self._groups[group_key] = self._new_group(row)
        group.count += count
        for field, present in zip(self._fields, group.values, strict=True):
            read = values[field.name]
            least, greatest = (
                Row({field.name: raw}, self._schema).get(field.ref)
                for raw in (read.least, read.greatest)
            )
            present.add_read(read, least, greatest)

    def take(self, read: Fold, keys: Collection[GroupKey]) -> list[GroupKey]:
        """Take groups from a fold that was read for the same query and position.

        Those that it lacks are gone. Returns the keys of the groups that differ.
        """
        changed = [key for key in keys if self._state(key) != read._state(key)]
        for key in keys:
            group = read._groups.get(key)
            if group is not None:
                self._groups[key] = group
            else:
                self._groups.pop(key, None)
        self.needs.difference_update(keys)
        return changed

    def differences(self, other: Fold) -> list[GroupKey]:
        """Return the keys of the groups that differ from those of another fold."""
        keys = dict.fromkeys((*self._groups, *other._groups))
        return [key for key in keys if self._state(key) != other._state(key)]

    def _state(self, key: GroupKey) -> tuple[Any, ...] | None:
        group = self._groups.get(key)
        return None if group is None else group.state

    # frames

    def result(self, key: GroupKey) -> dict[str, Any] | None:
        """Return the aggregates of a group for a frame; None if there is no such group."""
        group = self._groups.get(key)
        if group is None:
            return None
        result: dict[str, Any] = {} if group.key is None else {"key": group.key}
        result["count"] = group.count
        if not self._fields:
            return result
        values = dict(zip([field.name for field in self._fields], group.values, strict=True))
        query = self._query
        if query.sum:
            result["sum"] = {name: values[name].sum for name in query.sum}
        if query.avg:
            result["avg"] = {
                name: {"sum": values[name].sum, "n": values[name].n} for name in query.avg
            }
        if query.min:
            result["min"] = {name: values[name].min for name in query.min}
        if query.max:
            result["max"] = {name: values[name].max for name in query.max}
        return result


def _key_of_invalid(raw: Any) -> Hashable:
    """Return the key of a value that filters do not compare: null, or not valid for its field."""
    return None if raw is None else (encode_json(raw),)

"""The key sets of a process: the keys that querysets of permissions return, and who reads them.

A permission such as ``{"project__in": Project.objects.filter(members=identity.user)}`` has a key
set. Permissions whose queries compile to the same SQL and parameters share one. A change of a row
that such a query reads makes the set outdated until its keys were read again. Nothing may be
delivered by an outdated set.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db.models import QuerySet

from ..conf import conf
from ..declarations.collection import Collection
from ..declarations.dependency_table import label_of
from ..declarations.registry import registry
from ..events import Change
from ..filters import KeySet, MakeKeySet
from ..filters.key_set import keys_of
from ..filters.schema import Kind
from .key_queries import KeyQuery, read_many
from .probes import KeyQueryIndex, RowChange


class RelatedKeySet(KeySet):
    """The keys that a key query returns."""

    __slots__ = ("_held", "changes", "is_too_large", "loading", "query", "read_at")

    def __init__(self, query: KeyQuery, kind: Kind) -> None:
        super().__init__(query.shape.sql, kind)
        self.query = query
        # number of times that its keys may have changed; those of a new set were never read
        self.changes = 1
        # the value of `changes` when its keys were last read
        self.read_at = 0
        # whether the query returned more keys than the limit; then the set is empty
        self.is_too_large = False
        # held while the keys of a new set are read
        self.loading = threading.Lock()
        # the last result of `held`, which subscriptions share
        self._held: weakref.ref[KeySet] | None = None

    @property
    def description(self) -> str:
        """The statement and its parameters."""
        params = (str(p) if isinstance(p, datetime) else repr(p) for p in self.query.params)
        return "\n".join((self.name, *params))

    @property
    def is_outdated(self) -> bool:
        """Whether its keys may have changed since they were last read."""
        return self.read_at != self.changes

    def held(self) -> KeySet:
        """Return another set with the keys of this moment, the same until they change."""
        copy = None if self._held is None else self._held()
        if copy is None or copy.version != self.version:
            copy = super().held()
            self._held = weakref.ref(copy)
        return copy


class KeySets:
    """The key sets of one event loop, by their queries.

    A set lives as long as a filter contains it. Its keys are changed in the event loop, by `store`;
    only those of a new set are read where it is made, in a worker thread.
    """

    def __init__(self) -> None:
        # all sets
        self._sets: dict[KeyQuery, _SetReference] = {}
        # their queries
        self._index = KeyQueryIndex()
        # references to sets that have ended; appended to in any thread
        self._ended: deque[_SetReference] = deque()
        # the same function for all references, which saves memory
        self._note_ended = self._ended.append
        # held while the attributes above are used
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return bool(self._sets)

    def maker(self, collection: Collection) -> MakeKeySet:
        """Return the function that makes the key sets for the fields of a collection.

        It uses the ORM. It raises `UnsupportedQuery`, and ``ImproperlyConfigured`` for a query
        that reads a table that ``depends_on`` does not name, or has too many keys.
        """

        def make(field: str, queryset: QuerySet[Any]) -> KeySet:
            model, using = collection.concrete_model, collection.database
            query = KeyQuery.resolve(model, field, queryset, using)
            _check_declared(collection, field, query)
            key_set = self._load(query, collection.schema[field].compares_as)
            if key_set.is_too_large:
                raise ImproperlyConfigured(
                    f"Collection {collection.name!r}: the queryset for {field!r} returns more than "
                    f"{conf.limits.set_keys} keys. Restrict it, or raise LIMITS['set_keys']."
                )
            return key_set

        return make

    def _load(self, query: KeyQuery, kind: Kind) -> RelatedKeySet:
        """Return the set of a query, whose keys were read at least once."""
        with self._lock:
            self._forget_ended()
            reference = self._sets.get(query)
            key_set = None if reference is None else reference()
            if key_set is None:
                # known before its keys are read, so that a change from now on makes it outdated
                key_set = RelatedKeySet(query, kind)
                self._sets[query] = _SetReference(key_set, self._note_ended)
                self._index.add(query)
        with key_set.loading:
            # one that was too large has no subscriptions, so that nothing else would read it again
            if key_set.read_at == 0 or key_set.is_too_large:
                changes = key_set.changes
                store(key_set, query.read_keys(conf.limits.set_keys), changes)
        return key_set

    def find_touched(self, changes: Sequence[Change]) -> list[RelatedKeySet]:
        """Return the sets whose keys may have changed, given events of a hidden stream.

        Uses the ORM.
        """
        with self._lock:
            self._forget_ended()
            return self._living(self._index.find_touched(list(row_changes(changes))))

    def find_all(self, using: str) -> list[RelatedKeySet]:
        """Return all sets of a database."""
        return self._living([query for query in list(self._sets) if query.using == using])

    def _living(self, queries: Iterable[KeyQuery]) -> list[RelatedKeySet]:
        # another thread may remove one in the meantime
        references = [self._sets.get(query) for query in queries]
        sets = [None if reference is None else reference() for reference in references]
        return [key_set for key_set in sets if key_set is not None]

    def _forget_ended(self) -> None:
        while self._ended:
            reference = self._ended.popleft()
            if self._sets.get(reference.query) is reference:
                del self._sets[reference.query]
                self._index.discard(reference.query)


class _SetReference(weakref.ref[RelatedKeySet]):
    """A weak reference to a set that knows its query."""

    __slots__ = ("query",)

    # the query of the set
    query: KeyQuery

    def __new__(
        cls, key_set: RelatedKeySet, note_ended: Callable[[_SetReference], None]
    ) -> _SetReference:
        """Return a reference, with which ``note_ended`` is called when the set has ended."""
        reference = super().__new__(cls, key_set, note_ended)
        reference.query = key_set.query
        return reference


def read_keys(key_sets: Sequence[RelatedKeySet]) -> list[list[Any]]:
    """Return the keys that the queries of sets return now, for `store`. Uses the ORM."""
    return read_many([key_set.query for key_set in key_sets], conf.limits.set_keys)


def store(key_set: RelatedKeySet, keys: Sequence[Any], changes: int) -> None:
    """Set the keys of a set. ``changes`` is that attribute of the set before they were read."""
    key_set.is_too_large = len(keys) > conf.limits.set_keys
    key_set.replace([] if key_set.is_too_large else keys_of(key_set.kind, keys))
    key_set.read_at = changes


def row_changes(changes: Iterable[Change]) -> Iterator[RowChange]:
    """Yield the changes of rows in events of a hidden stream.

    An image that is not known is empty, and stands for any row.
    """
    for change in changes:
        label, key = label_of(change.document_id)
        table = registry.dependency(label)
        if table is None:  # no collection depends on it any more
            continue
        fields = table.codec.fields
        before, after = (
            None
            if change.op == missing
            else {
                fields[name].attname: value
                for name, value in (image or {}).items()
                if name in fields and name not in table.codec.raw_names
            }
            for image, missing in ((change.before, "created"), (change.after, "deleted"))
        )
        yield RowChange(label, key, before, after)


def _check_declared(collection: Collection, field: str, query: KeyQuery) -> None:
    """Refuse a query of tables whose changes are not followed, with the line to add."""
    missing = sorted(query.tables - set(collection.dependencies))
    if not missing:
        return
    declared = [*collection.depends_on, *missing]
    raise ImproperlyConfigured(
        f"Collection {collection.name!r}: the queryset for {field!r} in visible_to reads "
        f"{missing}, whose changes are not followed. Add the option: depends_on = {declared}"
    )

"""Reads what triggers have logged since a moment, for `testing.capture_events`.

The rows of the log are read whether they are committed or not. In a test that commits nothing, only
the thread with the transaction sees them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from django.db import DatabaseError, connections
from django.db.models import Max, Q
from msgspec.structs import replace

from ...declarations.collection import Collection
from ...events import Change
from ...log.decoding import FIELDS, changes_from_rows
from ...models import LogEvent
from ...utils.transactions import own_statements
from ..recorder import log_exists
from .installation import by_triggers


class TriggerLog:
    """The changes that triggers have logged since this object was created.

    ``add`` is called with each change, ``remove`` if its transaction turns out to be rolled back.
    """

    def __init__(self, add: Callable[[Change], object], remove: Callable[[Change], object]) -> None:
        self._add = add
        self._remove = remove
        # added changes by database and id in the log
        self._changes: dict[str, dict[int, Change]] = {}
        # streams of collections that are captured by triggers, by database
        self._streams: dict[str, list[str]] = {}
        for collection in by_triggers():
            if isinstance(collection, Collection):
                self._streams.setdefault(collection.database, []).append(collection.stream)
        # connection with which changes were read first, on the thread that wrote them
        self._writers: dict[str, Any] = {}
        # id of the last row of the log, by database
        self._starts: dict[str, int] = {}
        if self._streams:
            _call_outside_of_event_loop(self._find_starts)

    def read(self, using: str | None = None) -> None:
        """Add what is new in the log of one database, or of all, and remove what is gone."""
        if self._starts:
            _call_outside_of_event_loop(lambda: self._read_databases(using))

    def _find_starts(self) -> None:
        for using in self._streams:
            # tests without a database, or with another one
            with suppress(RuntimeError, AssertionError):
                if log_exists(using):
                    with own_statements(using):
                        rows = LogEvent.objects.using(using).order_by()
                        self._starts[using] = rows.aggregate(last=Max("id"))["last"] or 0

    def _read_databases(self, using: str | None) -> None:
        for database in self._starts if using is None else self._starts.keys() & {using}:
            # a broken transaction cannot be read
            with suppress(DatabaseError), own_statements(database):
                self._read(database)

    def _read(self, using: str) -> None:
        changes = self._changes.setdefault(using, {})
        # what the ORM's statements log, while there are no triggers, has images of another form
        by_trigger = Q(before__startswith="[") | Q(after__startswith="[")
        rows = LogEvent.objects.using(using).filter(
            by_trigger, id__gt=self._starts[using], collection__in=self._streams[using]
        )
        rows_by_id = {row[0]: row for row in rows.order_by("id").values_list(*FIELDS)}
        if self._sees_writes(using):
            for id in changes.keys() - rows_by_id.keys():
                self._remove(changes.pop(id))
        for id in sorted(rows_by_id.keys() - changes.keys()):
            (change,) = changes_from_rows(using, [rows_by_id[id]], epoch="", seqs=[0])
            changes[id] = replace(change, epoch=None, seq=None)
            self._add(changes[id])

    def _sees_writes(self, using: str) -> bool:
        """Return whether a change that is not in the log any more is rolled back.

        Other threads than the writer's do not see the changes of an open transaction.
        """
        current = connections[using]
        writer = self._writers.setdefault(using, current)
        return writer is current or not writer.in_atomic_block


def _call_outside_of_event_loop(call: Callable[[], None]) -> None:
    """Call a function that uses the database; in an event loop, on a thread of its own."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        call()
        return

    def call_and_close() -> None:
        try:
            call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as executor:
        executor.submit(call_and_close).result()

"""The oracle: replaying the log gives the tables that a test wrote.

While a test runs, the statements that it sends are looked at. Before the first one that writes to a
table, the rows of the table are read. At the end of the test, before its rollback, the events that
the log has got since then are applied to those rows, in the order of their ids, and the result is
compared with the rows as they are, value by value.

Queries of the oracle itself are not recorded in ``connection.queries``, and the connection's
wrappers do not see them.
"""

from __future__ import annotations

import json
import re
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from django.db import DatabaseError, connections, models
from django.db.backends.utils import CursorWrapper

MAX_DIFFERENCES = 5  # differences that are reported for one table
WRITE = re.compile(
    r"\s*(?:INSERT\s+(?:OR\s+\w+\s+)?INTO|REPLACE\s+INTO|UPDATE(?:\s+OR\s+\w+)?|DELETE\s+FROM)"
    r'\s+(?:"(?P<quoted>.+?)"(?=[\s(;]|$)|(?P<plain>[\w.]+))',
    re.IGNORECASE,
)
Images = dict[str, dict[str, Any]]
"""The images of a table's rows by document id."""


def written_table(sql: Any) -> str | None:
    """Return the name of the table that a statement writes to, or None."""
    match = WRITE.match(sql if isinstance(sql, str) else str(sql))
    return None if match is None else match["quoted"] or match["plain"]


def table_name(model: type[models.Model]) -> str:
    """Return the name of a model's table as it stands in a statement, without outer quotes."""
    return model._meta.db_table.strip('"')


@dataclass
class Start:
    """A watched table before the test's first write to it."""

    # id of the last event that the log had
    last_event: int
    images: Images


@dataclass
class Finding:
    """The findings of the oracle at the end of one test."""

    # events in the log, including those of the class's ``setUpTestData``
    events: int = 0
    # compared tables
    tables: int = 0
    # tables that could not be compared, with the reason
    skipped: list[str] = field(default_factory=list)
    # differences between log and table
    differences: list[str] = field(default_factory=list)
    # events whose before-image or operation does not fit what the log had before
    broken: list[str] = field(default_factory=list)
    # the traceback of an exception in the oracle itself
    error: str = ""


@dataclass
class Recording:
    """The writes of one test."""

    # by database and model; None if the rows could not be read
    starts: dict[tuple[str, type[models.Model]], Start | None] = field(default_factory=dict)
    finding: Finding = field(default_factory=Finding)


class Oracle:
    """Compares the log with the tables that a test writes to."""

    def __init__(self) -> None:
        from django_cocobase_realtime.declarations.registry import registry

        self._recording: Recording | None = None
        self._state = threading.local()
        self.collections = {collection.concrete_model: collection for collection in registry}
        # watched models whose rows show a column of the table, by the table's name
        self.models: dict[str, list[type[models.Model]]] = {}
        for model in self.collections:
            for base in (model, *model._meta.all_parents):
                self.models.setdefault(table_name(base), []).append(model)

    def install(self) -> None:
        """Look at each statement before it is executed."""
        original = CursorWrapper._execute_with_wrappers

        def execute(cursor: Any, sql: Any, *args: Any, **kwargs: Any) -> Any:
            if self._recording is not None and not self._is_busy():
                try:
                    self._before(cursor.db, sql, self._recording)
                except Exception:
                    self._recording.finding.error = traceback.format_exc()
            return original(cursor, sql, *args, **kwargs)

        CursorWrapper._execute_with_wrappers = execute

    def start(self) -> None:
        """Start a recording."""
        self._recording = Recording()

    def stop(self, aliases: Iterable[str]) -> Finding:
        """Stop the recording and compare, in the databases that the test may use."""
        recording = self._recording
        if recording is None:
            return Finding()
        self.compare()
        self._recording = None
        finding = recording.finding
        with self._busy():
            try:
                for alias in aliases:
                    finding.events += self._count_events(alias)
            except Exception:
                finding.error = traceback.format_exc()
        return finding

    def compare(self) -> None:
        """Compare what was written until now. Later writes are compared later."""
        recording = self._recording
        if recording is None:
            return
        starts, recording.starts = recording.starts, {}
        with self._busy():
            try:
                for (alias, model), start in starts.items():
                    self._compare(alias, model, start, recording.finding)
            except Exception:
                recording.finding.error = traceback.format_exc()

    def clear(self, aliases: Iterable[str]) -> None:
        """Empty the log, after a test whose writes are not rolled back."""
        from django_cocobase_realtime.models import LogEvent, Stream

        with self._busy():
            for alias in aliases:
                connection = connections[alias]
                if connection.connection is None or connection.in_atomic_block:
                    continue
                with quiet(connection), connection.cursor() as cursor:
                    for model in (LogEvent, Stream):
                        cursor.execute(f"DELETE FROM {model._meta.db_table}")
                if not connection.get_autocommit():
                    connection.commit()

    def _before(self, connection: Any, sql: Any, recording: Recording) -> None:
        table = written_table(sql)
        for model in self.models.get(table or "", ()):
            key = (connection.alias, model)
            if key in recording.starts:
                continue
            recording.starts[key] = None
            if connections[connection.alias] is not connection or connection.needs_rollback:
                continue
            if self.collections[model].database != connection.alias:
                continue
            with self._busy(), suppress(DatabaseError), reading(connection) as state:
                recording.starts[key] = Start(last_event(connection), self._images(model, state))

    def _images(self, model: type[models.Model], connection: Any) -> Images:
        """Return the images of a table's rows as a query returns them."""
        codec = self.collections[model].codec
        keys = model._meta.pk_fields
        names = {*codec.attnames, *(field.attname for field in keys)}
        rows = models.QuerySet(model, using=connection.alias).order_by().values(*names)
        images = {}
        for row in rows:
            key = tuple(row[field.attname] for field in keys)
            images[codec.document_id(key if len(key) > 1 else key[0])] = json_values(
                {
                    name: encode(field, row[field.attname], connection)
                    for name, field in codec.fields.items()
                }
            )
        return images

    def _compare(
        self, alias: str, model: type[models.Model], start: Start | None, finding: Finding
    ) -> None:
        label = f"{model._meta.label} in {alias}"
        connection = connections[alias]
        collection = self.collections[model]
        if start is None or connection.needs_rollback or collection.database != alias:
            finding.skipped.append(label)
            return
        rows: Images | None = None
        with suppress(DatabaseError), reading(connection):
            events = read_events(alias, collection.stream, start.last_event)
            rows = self._images(model, connection)
        if rows is None:
            finding.skipped.append(label)
            return
        finding.tables += 1
        codec = collection.codec

        def decode(image: dict[str, Any] | None) -> dict[str, Any] | None:
            return None if image is None else json_values(codec.decode(image, alias))

        replayed = dict(start.images)
        for event in events:
            id, op, document_id = event.id, event.op, event.document_id
            before, after = decode(event.before), decode(event.after)
            known = replayed.get(document_id)
            if op == "created" and known is not None:
                finding.broken.append(f"{label}: event {id} creates {document_id}, which exists")
            if op != "created" and known is None:
                finding.broken.append(f"{label}: event {id}, {op} {document_id}: there is no row")
            elif before is not None and known != before:
                finding.broken.append(
                    f"{label}: event {id}, {op} {document_id}: before "
                    + "; ".join(differing(before, known))
                )
            if after is None:
                replayed.pop(document_id, None)
            else:
                replayed[document_id] = after
        differences = list(compare(replayed, rows))
        finding.differences += [f"{label}: {text}" for text in differences[:MAX_DIFFERENCES]]

    def _count_events(self, alias: str) -> int:
        connection = connections[alias]
        if connection.connection is None or connection.needs_rollback:
            return 0
        with suppress(DatabaseError), reading(connection):
            return count_events(connection)
        return 0

    def _is_busy(self) -> bool:
        return getattr(self._state, "busy", False)

    @contextmanager
    def _busy(self) -> Iterator[None]:
        self._state.busy = True
        try:
            yield
        finally:
            self._state.busy = False


def json_values(image: dict[str, Any]) -> dict[str, Any]:
    """Return an image as it is after it was written as JSON."""
    return json.loads(json.dumps(image))


def encode(field: models.Field[Any, Any], value: Any, connection: Any) -> Any:
    """Return the JSON value of a field, also of one with a conversion of the project's own."""
    from django_cocobase_realtime.declarations.serialization import (
        field_encoder,
        has_custom_conversion,
        to_json_value,
    )

    if not has_custom_conversion(field):
        return field_encoder(field)(value)
    for convert in (field_encoder(field), to_json_value, str):
        with suppress(Exception):
            return convert(value)
    return None if value is None else str(field.get_db_prep_save(value, connection))


def compare(replayed: Images, rows: Images) -> Iterator[str]:
    """Describe how the replayed log and the rows differ."""
    for key in sorted(replayed.keys() - rows.keys()):
        yield f"{key} is in the log, but not in the table"
    for key in sorted(rows.keys() - replayed.keys()):
        yield f"{key} is in the table, but not in the log"
    for key in sorted(rows.keys() & replayed.keys()):
        for text in differing(replayed[key], rows[key]):
            yield f"{key}: {text}"


def differing(left: dict[str, Any] | None, right: dict[str, Any] | None) -> Iterator[str]:
    """Describe how an image in the log and one of the table differ."""
    left, right = left or {}, right or {}
    for name in sorted(left.keys() | right.keys()):
        if left.get(name) != right.get(name) or (name in left) != (name in right):
            yield f"{name} is {left.get(name)!r} in the log, {right.get(name)!r} in the table"


@contextmanager
def quiet(connection: Any) -> Iterator[None]:
    """Keep statements out of the connection's log and away from its wrappers."""
    own = connection.__dict__.get("make_debug_cursor")
    wrappers = connection.execute_wrappers
    connection.make_debug_cursor = connection.make_cursor
    connection.execute_wrappers = []
    try:
        yield
    finally:
        connection.execute_wrappers = wrappers
        if own is None:
            del connection.make_debug_cursor
        else:
            connection.make_debug_cursor = own


@contextmanager
def reading(connection: Any) -> Iterator[Any]:
    """Read without a trace. A database error ends the block, and leaves the transaction usable."""
    savepoint = '"django_suite_oracle"'
    with quiet(connection):
        inside = connection.in_atomic_block or not connection.get_autocommit()
        cursor = connection.cursor()
        if inside:
            # raises if the test has left a broken transaction on PostgreSQL
            cursor.execute(f"SAVEPOINT {savepoint}")
        try:
            yield connection
        except DatabaseError:
            if inside:
                cursor.execute(f"ROLLBACK TO SAVEPOINT {savepoint}")
        if inside:
            cursor.execute(f"RELEASE SAVEPOINT {savepoint}")
        cursor.close()


def last_event(connection: Any) -> int:
    """Return the id of the last event, 0 if there is none."""
    from django_cocobase_realtime.models import LogEvent

    with connection.cursor() as cursor:
        cursor.execute(f"SELECT coalesce(max(id), 0) FROM {LogEvent._meta.db_table}")
        (id,) = cursor.fetchone()
    return id


def count_events(connection: Any) -> int:
    """Return how many events the log has."""
    from django_cocobase_realtime.models import LogEvent

    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {LogEvent._meta.db_table}")
        (count,) = cursor.fetchone()
    return count


def read_events(using: str, collection: str, after: int) -> list[Any]:
    """Return a collection's events above an id."""
    from django_cocobase_realtime.log.decoding import FIELDS, changes_from_rows
    from django_cocobase_realtime.models import LogEvent

    events = LogEvent.objects.using(using).filter(collection=collection, id__gt=after)
    rows = list(events.order_by("id").values_list(*FIELDS))
    return changes_from_rows(using, rows, epoch="", seqs=[0] * len(rows)) if rows else []

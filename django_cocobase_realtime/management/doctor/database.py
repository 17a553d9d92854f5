"""Probes of one database: whether it answers, its tables and triggers, and its clock."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Iterator
from typing import Any

from django.db import DatabaseError, connections, transaction
from django.db.migrations.loader import MigrationLoader

from ...capture.triggers import by_triggers, left_over
from ...capture.triggers.catalog import Catalog
from ...conf import conf
from ...declarations.capture_mode import TRIGGER_VENDORS
from ...log.log_reader import reason_for_thread
from ...models import LogEvent, Stream
from ...pubsub.listener import receives_notifications, supports_listen
from .base import Finding

# seconds after which an answer is slow
SLOW_ANSWER = 0.1
# seconds by which clocks may differ
CLOCK_WARNING = 1.0
CLOCK_FAILURE = 10.0
# times that a clock is read
CLOCK_SAMPLES = 3
# statements that return the time of a database as a Unix time
CLOCKS = {
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",
    "mysql": "SELECT unix_timestamp(now(6))",
}
# connections that a process keeps besides its worker threads: for authentication, for the log and
# for announcements
OTHER_CONNECTIONS = 4


def probe_connection(using: str) -> Iterator[Finding]:
    """Connect, and write a row that is rolled back."""
    connection: Any = connections[using]
    connection.ensure_connection()
    started_at = time.monotonic()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        cursor.fetchone()
    seconds = time.monotonic() - started_at
    text = f"{connection.display_name} answers in {seconds * 1000:.1f} ms"
    if seconds > SLOW_ANSWER:
        hint = "Each event waits for several answers. Put the database near the servers."
        yield Finding("warn", f"{text}.", hint)
    else:
        yield Finding("ok", f"{text}.")
    if not _has_table(connection, Stream._meta.db_table):
        return  # `probe_tables` reports it
    try:
        with transaction.atomic(using=using):
            Stream.objects.using(using).create(collection=f"doctor:{secrets.token_hex(8)}")
            transaction.set_rollback(True, using=using)
    except DatabaseError as error:
        hint = "Use a role that may write to the tables of the app, and not a read-only replica."
        yield Finding("fail", f"A row cannot be written: {_one_line(error)}", hint)
    else:
        yield Finding("ok", "A row can be written.")


def probe_tables(using: str) -> Iterator[Finding]:
    """Find migrations that are not applied, and tables that do not exist."""
    connection: Any = connections[using]
    label = LogEvent._meta.app_label
    loader = MigrationLoader(connection)
    known = {name for app, name in loader.graph.nodes if app == label}
    missing = sorted(name for name in known if (label, name) not in loader.applied_migrations)
    if missing:
        hint = f"Run manage.py migrate --database {using}."
        yield Finding("fail", f"Migrations are not applied: {', '.join(missing)}.", hint)
        return
    with connection.cursor() as cursor:
        names = set(connection.introspection.table_names(cursor))
    tables = (model._meta.db_table for model in (Stream, LogEvent))
    gone = [table for table in tables if table not in names]
    if gone:
        hint = "Migrations are recorded as applied, but did not create these: look at the routers."
        yield Finding("fail", f"There is no table {', '.join(gone)}.", hint)
    else:
        yield Finding("ok", "All migrations of the app are applied.")


def probe_triggers(using: str) -> Iterator[Finding]:
    """Find triggers that are missing, out of date, or not needed."""
    if connections[using].vendor not in TRIGGER_VENDORS:
        return
    captured = by_triggers(using)
    if captured:
        known = Catalog(using, captured)
        wrong = [collection.name for collection in captured if known.outdated(collection)]
        if wrong:
            yield Finding(
                "fail",
                f"Triggers are missing or out of date: {', '.join(wrong)}.",
                "Changes by raw SQL and other programs are lost. Run realtime_triggers install.",
            )
        else:
            yield Finding("ok", f"The triggers of {len(captured)} tables are up to date.")
    if left_over(using):
        yield Finding(
            "warn",
            "There are triggers that no collection needs.",
            "They slow down writes. Run realtime_triggers install.",
        )


def probe_clock(using: str) -> Iterator[Finding]:
    """Compare the clock of the database with that of this process."""
    statement = CLOCKS.get(connections[using].vendor)
    if statement is None:
        return
    connections[using].ensure_connection()
    samples = []
    for _ in range(CLOCK_SAMPLES):
        before = time.time()
        database = database_time(using, statement)
        after = time.time()
        samples.append((after - before, database - (before + after) / 2))
    # the fastest answer is the most exact one
    yield clock_finding(min(samples)[1], "the database")


def clock_finding(skew: float, other: str) -> Finding:
    """Return the finding for a clock that is ``skew`` seconds ahead of that of this process."""
    direction = "ahead of" if skew > 0 else "behind"
    text = f"The clock of {other} is {abs(skew):.2f} s {direction} that of this process."
    if abs(skew) <= CLOCK_WARNING:
        return Finding("ok", text)
    hint = "Synchronize both by NTP: tokens, leases of rooms and retention compare such times."
    return Finding("fail" if abs(skew) > CLOCK_FAILURE else "warn", text, hint)


def database_time(using: str, statement: str) -> float:
    """Return the Unix time that a database has."""
    with connections[using].cursor() as cursor:
        cursor.execute(statement)
        row = cursor.fetchone()
    assert row is not None
    return float(row[0])


def probe_announcements(using: str) -> Iterator[Finding]:
    """Test whether PostgreSQL announces new events, and numbers them without a thread."""
    if connections[using].vendor != "postgresql":
        return
    direct = "Give server processes a direct connection to PostgreSQL, and psycopg 3."
    if not supports_listen(using):
        yield Finding("warn", "New events are not announced by NOTIFY with psycopg 2.", direct)
    elif asyncio.run(receives_notifications(using)):
        yield Finding("ok", "New events are announced by NOTIFY.")
    else:
        yield Finding("warn", "Notifications do not pass the pooler.", direct)
    reason = asyncio.run(reason_for_thread(using))
    if reason is None:
        yield Finding("ok", "Events are numbered by a function of the database.")
    else:
        yield Finding("warn", f"Events are numbered in a thread, because {reason}.", direct)


def probe_capacity(using: str) -> Iterator[Finding]:
    """Compare the connections that PostgreSQL still accepts with those that servers need."""
    if connections[using].vendor != "postgresql":
        return
    with connections[using].cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int,"
            " (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
        )
        row = cursor.fetchone()
    assert row is not None
    (accepted, used), needed = row, conf.workers + OTHER_CONNECTIONS
    text = f"PostgreSQL accepts {accepted} connections, {used} of them are open"
    processes = server_processes()
    if processes * needed > accepted:
        yield Finding(
            "warn",
            f"{text}. {processes} server processes may need {processes * needed}.",
            "Lower WORKERS or the number of processes, or raise max_connections.",
        )
    else:
        yield Finding("ok", f"{text}; a server process may need {needed}.")


def server_processes() -> int:
    """Return how many server processes the environment asks for."""
    text = os.environ.get("WEB_CONCURRENCY", "")
    return int(text) if text.isdigit() and int(text) else 1


def _has_table(connection: Any, name: str) -> bool:
    with connection.cursor() as cursor:
        return name in connection.introspection.table_names(cursor)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

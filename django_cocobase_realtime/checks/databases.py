"""Checks of the databases: what they support, and which writes to them are not seen."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Container, Iterator

from django.conf import settings
from django.core.checks import CheckMessage
from django.db import connections

from ..conf import conf
from ..declarations.capture_mode import captured_by
from ..declarations.registry import registry
from ..log.log_reader import reason_for_thread
from ..models import PresenceRoom
from ..presence.base import BACKENDS
from ..pubsub.listener import receives_notifications, supports_listen
from ..utils.concurrency import RESERVED_CONNECTIONS, connection_pool_size, worker_count
from ..utils.transactions import database_for
from .base import error, info, warning

# packages with a database backend that sets a schema for each tenant
TENANT_PACKAGES = ("django_tenants", "tenant_schemas")


def check_database_vendors() -> Iterator[CheckMessage]:
    """Check for collections in databases that do not support everything."""
    names_by_database: dict[str, list[str]] = {}
    for collection in registry:
        if connections[collection.database].vendor == "mysql":
            names_by_database.setdefault(collection.database, []).append(collection.name)
    for using, names in names_by_database.items():
        yield warning(
            17,
            f"Collections {', '.join(map(repr, names))} are in {using!r}, a "
            f"{connections[using].display_name} database: collections work there, rooms do not.",
            "Filters and orders of snapshots follow the collations of that database, and "
            "conditions on parts of texts and on JSON are refused. PostgreSQL and SQLite support "
            "everything.",
        )


def check_presence_database() -> Iterator[CheckMessage]:
    """Check that presence, if it is stored in a database, is in one that supports it."""
    if conf.problems("PRESENCE") or conf.presence.backend not in ("database", BACKENDS["database"]):
        return
    using = database_for(PresenceRoom)
    if connections[using].vendor == "mysql":
        yield warning(
            100,
            f"Presence is stored in {using!r}, a {connections[using].display_name} database, "
            "which cannot do this: every request to join a room fails.",
            "Store it in Redis, in PostgreSQL or in SQLite if you use rooms.",
        )


def check_connection_pools() -> Iterator[CheckMessage]:
    """Check that pools of connections are large enough for all threads of a process."""
    if conf.problems("WORKERS"):
        return
    needed = conf.workers + RESERVED_CONNECTIONS
    for using in connections.settings:
        size = connection_pool_size(using)
        if size is not None and size < needed:
            yield warning(
                62,
                f"The connection pool of database {using!r} has {size} connections, so that only "
                f"{worker_count()} of {conf.workers} WORKERS can be used.",
                f"Set max_size in OPTIONS['pool'] to {needed} or more, or lower WORKERS.",
            )


def check_tenants() -> Iterator[CheckMessage]:
    """Check that no package gives each tenant a schema of its own."""
    engines = [str(database.get("ENGINE", "")) for database in settings.DATABASES.values()]
    routers = [
        router if isinstance(router, str) else type(router).__name__
        for router in settings.DATABASE_ROUTERS
    ]
    if (
        any(engine.partition(".")[0] in TENANT_PACKAGES for engine in engines)
        or any(router.endswith("TenantSyncRouter") for router in routers)
        or (hasattr(settings, "SHARED_APPS") and hasattr(settings, "TENANT_APPS"))
    ):
        yield error(
            18,
            "The project keeps each tenant in a schema of its own, which is not supported.",
            "Clients of one tenant would get changes of another, or none. Keep the tenants in one "
            "schema, with a column that names the tenant.",
        )


def is_check_command() -> bool:
    """Return whether ``manage.py check`` is running, and not another command's own checks."""
    return sys.argv[1:2] == ["check"]


def check_unseen_writes() -> Iterator[CheckMessage]:
    """Name the ways in which rows can change without an event."""
    labels, unmanaged, changed_by_database = set(), set(), set()
    for collection in registry.captured():
        if captured_by(collection) == "triggers":
            continue
        meta = collection.concrete_model._meta
        if meta.managed:
            labels.add(meta.label)
        else:
            unmanaged.add(meta.label)
        for field in meta.concrete_fields:
            handler = getattr(field.remote_field, "on_delete", None)
            if handler is not None and type(handler).__name__ == "DatabaseOnDelete":
                changed_by_database.add(f"{meta.label}.{field.name}")
    if changed_by_database:
        yield warning(
            81,
            f"Rows that the database changes through "
            f"{', '.join(sorted(changed_by_database))} are not sent to clients.",
            "Use Django's own on_delete, or capture = 'triggers'.",
        )
    if labels:
        yield info(
            82,
            f"Changes of {', '.join(sorted(labels))} are seen if the ORM makes them. Raw SQL, "
            "COPY, triggers of the database and other programs are not seen.",
            "If rows change in such ways, use capture = 'triggers', or call "
            "notify_change. Else silence cocobase_realtime.I082.",
        )
    if unmanaged:
        yield info(
            83,
            f"{', '.join(sorted(unmanaged))} have tables or views that Django does not manage. "
            "Changes that other programs make to their rows are not seen.",
            "Watch the models whose tables a view shows, or call notify_change. "
            "Else silence cocobase_realtime.I083.",
        )


def check_announcements(databases: Container[str]) -> Iterator[CheckMessage]:
    """Find PostgreSQL databases whose new events cannot be announced by ``NOTIFY``."""
    for using in registry.log_databases():
        if using not in databases or connections[using].vendor != "postgresql":
            continue
        reason = _reason_for_layer(using)
        if reason is not None:
            yield info(
                84,
                f"New events of database {using!r} are announced to server processes through the "
                f"channel layer, because {reason}.",
                "Saves are faster, and need no channel layer, if server processes have a direct "
                "connection to PostgreSQL and psycopg 3. Else silence cocobase_realtime.I084.",
            )


def _reason_for_layer(using: str) -> str | None:
    """Return why LISTEN cannot be used; None if it can."""
    if not supports_listen(using):
        return "it is used with psycopg 2"
    try:
        is_delivered = asyncio.run(receives_notifications(using))
    except Exception as error:
        return f"no connection can be opened that listens: {error}"
    return None if is_delivered else "notifications do not pass its pooler"


def check_numbering(databases: Container[str]) -> Iterator[CheckMessage]:
    """Report PostgreSQL databases whose events are numbered in a thread of each server process."""
    for using in registry.log_databases():
        if using not in databases or connections[using].vendor != "postgresql":
            continue
        try:
            reason = asyncio.run(reason_for_thread(using))
        except Exception:  # noqa: S112 - `check_announcements` reports it
            continue
        if reason is not None:
            yield info(
                85,
                f"Events of database {using!r} are numbered by the ORM, in a thread of each server "
                f"process, because {reason}.",
                "An event costs several times less CPU if server processes have a direct "
                "connection to PostgreSQL, and the role that migrates may create functions. "
                "Migration 0009_related_numbers creates the function; reverse it and apply it "
                "again to repeat this. Else silence cocobase_realtime.I085.",
            )

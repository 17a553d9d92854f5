"""The state of handlers: how far they are, and whether they fail."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..declarations.handler import ChangeHandler
from ..declarations.registry import registry
from ..log.reader import stream_ranges
from ..log.sequencer import unsequenced
from ..models import Handler
from .leases import held_leases


@dataclass(frozen=True, slots=True)
class HandlerStatus:
    """The state of one handler."""

    name: str
    # name of the collection
    collection: str
    # "new" before the first run, "stopped" after the last attempt, "failing", "lost" if the log
    # does not contain its next change any more, "running" or "idle" if no process calls it
    state: str
    # committed changes that it was not called with; None before the first run
    lag: int | None
    # attempts to handle the next change that have failed, and the last exception
    failures: int
    last_error: str
    # time at which the position was stored
    updated_at: datetime | None


def handler_status(handler: ChangeHandler) -> HandlerStatus:
    """Return the state of a handler. Raises ``UnknownCollection``."""
    collection = registry.get(handler.collection)
    using, stream = collection.database, collection.stream
    row = Handler.objects.using(using).filter(name=handler.name).first()
    if row is None:
        return HandlerStatus(handler.name, collection.name, "new", None, 0, "", None)
    known = stream_ranges(using, [stream]).get(stream)
    waiting = unsequenced(using, stream).count()
    is_known = known is not None and known.epoch == row.epoch and row.collection == stream
    if known is None:
        lag = waiting
    else:
        lag = waiting + known.head - (row.seq if is_known else known.floor)
    if row.stopped_at is not None:
        state = "stopped"
    elif known is not None and (not is_known or row.seq < known.floor):
        state = "lost"
    elif row.failures:
        state = "failing"
    else:
        state = "running" if row.name in held_leases(using) else "idle"
    return HandlerStatus(
        handler.name,
        collection.name,
        state,
        lag,
        row.failures,
        row.last_error,
        row.updated_at,
    )


def restart_handler(handler: ChangeHandler) -> bool:
    """Let a stopped handler try its next change again; return whether it was stopped."""
    using = registry.get(handler.collection).database
    rows = Handler.objects.using(using).filter(name=handler.name, stopped_at__isnull=False)
    return rows.update(stopped_at=None, failures=0) == 1

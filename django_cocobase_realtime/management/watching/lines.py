"""Events as lines of text, in colour, and as JSON."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime

from ...delivery.event_frames import cursor_of
from .view import ShownEvent

# characters of a value in a line
MAX_VALUE = 60
# characters of a transaction's id in a line
TRANSACTION_LENGTH = 8
# seconds over which the rate is measured
RATE_SECONDS = 10.0

# colours a text, given the name of a role of Django's styles
Paint = Callable[[str, str], str]

# roles of Django's styles, by event
ROLES = {
    "created": "SUCCESS",
    "entered": "SUCCESS",
    "updated": "WARNING",
    "deleted": "ERROR",
    "left": "ERROR",
}


def as_line(shown: ShownEvent, paint: Paint) -> str:
    """Return the line for an event: time, event, document, fields and transaction."""
    change = shown.change
    at = parse_datetime(change.at)
    if at is not None and timezone.is_aware(at):
        at = timezone.localtime(at)
    clock = change.at if at is None else f"{at:%H:%M:%S}"
    name = printable(f"{change.collection}/{change.document_id}")
    parts = [clock, paint(ROLES[shown.event], f"{shown.event:<7}"), name]
    if change.has_failed_document:
        parts.append("the serializer failed")
    parts += _fields(shown)
    transaction = printable(change.transaction[:TRANSACTION_LENGTH])
    parts.append(paint("HTTP_NOT_MODIFIED", f"({transaction})"))
    return "  ".join(parts)


def _fields(shown: ShownEvent) -> list[str]:
    """Return the values of an event: for an update, those that changed, if that is known."""
    if shown.data is None or shown.event == "deleted":
        return []
    names = list(shown.data)
    if shown.changed is not None and shown.event not in ("created", "entered"):
        names = [name for name in shown.changed if name in shown.data]
    texts = []
    for name in names:
        text = _value(shown.data[name])
        if name in shown.old:
            text = f"{_value(shown.old[name])} → {text}"
        texts.append(f"{printable(name)}={text}")
    return texts


def _value(value: Any) -> str:
    text = printable(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= MAX_VALUE else f"{text[:MAX_VALUE]}…"


def printable(text: str) -> str:
    """Return a text without characters that control a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_json(shown: ShownEvent) -> str:
    """Return an event as one line of JSON."""
    change = shown.change
    event: dict[str, Any] = {
        "event": shown.event,
        "collection": change.collection,
        "id": change.document_id,
        "data": shown.data,
        "changed": shown.changed,
        "transaction": change.transaction,
        "at": change.at,
        "cursor": cursor_of(change),
    }
    if shown.old:
        event["old"] = shown.old
    return json.dumps(event, default=str)


class Rate:
    """The number of events per second over the last seconds, and in all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_at = clock()
        # times and numbers of events, oldest first
        self._reads: deque[tuple[float, int]] = deque()
        # events that were read
        self.read = 0
        # events that were shown
        self.shown = 0

    def add(self, read: int, shown: int) -> None:
        """Count events of one read."""
        self.read += read
        self.shown += shown
        if read:
            self._reads.append((self._clock(), read))

    def line(self) -> str:
        """Return a line of text with the rate."""
        now = self._clock()
        while self._reads and self._reads[0][0] < now - RATE_SECONDS:
            self._reads.popleft()
        seconds = max(min(RATE_SECONDS, now - self._started_at), 1.0)
        rate = sum(count for _, count in self._reads) / seconds
        return f"{rate:.1f} events/s, {self.read} read, {self.shown} shown"

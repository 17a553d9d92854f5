"""Probes of the log of one database: numbering and retention."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from django.db.models import Count, Min
from django.utils import timezone

from ...conf import conf
from ...models import LogEvent, Stream
from .base import Finding

# seconds after which an event without a number is reported; servers number all events, also of
# collections that no client follows, when they trim the log
UNNUMBERED_SECONDS = 300.0
# servers trim about once a minute; what exceeds the bounds by more than this is reported
TRIM_SECONDS = 600.0
TRIM_EVENTS = 20_000
# streams that are named in one line
MAX_NAMES = 5
SERVER_HINT = "Start a server, or run realtime_trim from cron if there are no clients for long."


def probe_numbering(using: str) -> Iterator[Finding]:
    """Find streams with events that have had no number for long."""
    waiting = LogEvent.objects.using(using).filter(seq=None).order_by()
    rows = waiting.values_list("collection").annotate(number=Count("id"), oldest=Min("created_at"))
    now = timezone.now()
    late = [
        f"{name} ({number}, for {(now - oldest).total_seconds():.0f} s)"
        for name, number, oldest in rows
        if (now - oldest).total_seconds() > UNNUMBERED_SECONDS
    ]
    if late:
        yield Finding("warn", f"Events have no number: {_list(late)}.", SERVER_HINT)
    else:
        yield Finding("ok", "No event has been without a number for long.")


def probe_retention(using: str) -> Iterator[Finding]:
    """Find streams that are kept for longer than the setting ``LOG`` says."""
    settings = conf.log
    if settings.max_age is None and settings.max_events is None:
        hint = "Set MAX_AGE or MAX_EVENTS in LOG."
        yield Finding("warn", "The log is never trimmed, and grows without bound.", hint)
        return
    late, total = [], 0
    for stream in Stream.objects.using(using).order_by("collection"):
        total += stream.head - stream.floor
        if settings.max_events is not None:
            excess = stream.head - stream.floor - settings.max_events
            if excess > TRIM_EVENTS:
                late.append(f"{stream.collection} ({excess} events too many)")
                continue
        if settings.max_age is None or stream.head == stream.floor:
            continue
        events = LogEvent.objects.using(using).filter(collection=stream.collection)
        first = events.filter(seq__gt=stream.floor).order_by("seq")
        created_at = first.values_list("created_at", flat=True).first()
        bound = timezone.now() - timedelta(seconds=settings.max_age + TRIM_SECONDS)
        if created_at is not None and created_at < bound:
            late.append(f"{stream.collection} (since {created_at:%Y-%m-%d %H:%M})")
    if late:
        yield Finding("warn", f"Old events are not deleted: {_list(late)}.", SERVER_HINT)
    else:
        yield Finding("ok", f"The log has {total} events, and is trimmed.")


def _list(items: list[str]) -> str:
    more = len(items) - MAX_NAMES
    return ", ".join(items[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")

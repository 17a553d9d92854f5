"""Reading: where a stream stands, and its events from a position on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from ..events import Change
from .models import LogEvent, Stream

FIELDS = (
    "id",
    "seq",
    "transaction_id",
    "collection",
    "op",
    "document_id",
    "before",
    "after",
    "changed",
    "document",
    "created_at",
)
Row = tuple[Any, ...]
"""Values of ``FIELDS``."""

_decode = msgspec.json.Decoder().decode


@dataclass(frozen=True, slots=True)
class StreamRange:
    """What a stream holds: events ``floor`` + 1 to ``head`` of ``epoch``."""

    epoch: str
    head: int
    floor: int


def stream_ranges(using: str, collections: Collection[str]) -> dict[str, StreamRange]:
    """Where these streams stand; a stream that was never begun is left out."""
    rows = Stream.objects.using(using).filter(collection__in=collections)
    return {
        name: StreamRange(epoch, head, floor)
        for name, epoch, head, floor in rows.values_list("collection", "epoch", "head", "floor")
    }


def streams_with_unsequenced(using: str, collections: Collection[str] | None = None) -> set[str]:
    """Streams, of all or of these, with committed events that have no number yet."""
    rows = LogEvent.objects.using(using).filter(seq=None)
    if collections is not None:
        rows = rows.filter(collection__in=collections)
    return set(rows.order_by().values_list("collection", flat=True).distinct())


def read_events(
    using: str, collection: str, epoch: str, after: int, limit: int, until: int | None = None
) -> list[Change]:
    """Up to ``limit`` events above ``after`` and not above ``upto``, in order.

    Where the first is not ``after`` + 1 the log was trimmed beyond ``after``.
    """
    rows = LogEvent.objects.using(using).filter(collection=collection, seq__gt=after)
    if until is not None:
        rows = rows.filter(seq__lte=until)
    return [
        change_from_row(row, epoch=epoch, seq=row[1])
        for row in rows.order_by("seq").values_list(*FIELDS)[:limit]
    ]


def change_from_row(row: Row, *, epoch: str, seq: int) -> Change:
    """An event from its row."""
    id, _, transaction, collection, op, document_id, before, after, changed, document, at = row
    return Change(
        id=str(id),
        collection=collection,
        op=op,
        document_id=document_id,
        transaction=transaction,
        at=_iso(at),
        before=None if before is None else _decode(before),
        after=None if after is None else _decode(after),
        changed=None if changed is None else tuple(_decode(changed)),
        document=None if document is None else _decode(document),
        epoch=epoch,
        seq=seq,
    )


def _iso(at: datetime) -> str:
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).isoformat()

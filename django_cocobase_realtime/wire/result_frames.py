"""Functions that return the frames with the results of live queries: windows and aggregates.

A frame that would be too long is sent in parts, which clients apply together with the last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Raw

from .frames import Frame, encode, encode_part

# bytes of a frame, apart from what it contains and from names and cursors
ENVELOPE_BYTES = 200


@dataclass(frozen=True, slots=True)
class ResultEnd:
    """The end of a change of a result, which its last frame contains."""

    # the position in the log at which the result is what the frames make of it
    cursor: str
    # the scope of the result from now on; None if it has not changed
    scope: str | None = None
    # whether a frame is sent although nothing has changed
    is_required: bool = False


def window(
    subscription: str,
    *,
    remove: Sequence[Any],
    insert: Sequence[tuple[int, Any]],
    reset: bool = False,
    more: bool = False,
    next: str | None = None,
    end: ResultEnd | None = None,
) -> Frame:
    """Return a change of a window, or a part of one.

    First the documents with the ids in ``remove`` are removed, then those of ``insert`` are
    inserted, each with its index in the window, in ascending order. ``reset`` is whether all
    documents are removed before. ``end`` is None if further parts follow. ``more`` is whether
    further documents match, and ``next`` the cursor of their page; None if it has not changed.
    """
    frame: Frame = {"type": "window", "subscription": subscription}
    if reset:
        frame["reset"] = True
    frame.update(remove=remove, insert=insert)
    if end is not None:
        frame["more"] = more
        if next is not None:
            frame["next"] = next
    return _ended(frame, end)


def window_parts(
    subscription: str,
    *,
    remove: Sequence[str],
    insert: Iterable[tuple[int, bytes]],
    reset: bool,
    more: bool,
    next: str | None,
    end: ResultEnd,
    max_bytes: int,
) -> Iterator[str]:
    """Yield a change of a window as encoded frames of at most ``max_bytes``.

    The documents to insert are encoded; a larger one has a frame of its own. They are read as far
    as the frame needs that is yielded.
    """
    removed: list[Raw] = []
    inserted: list[tuple[int, Raw]] = []
    size = ENVELOPE_BYTES

    def part() -> str:
        nonlocal reset, removed, inserted, size
        frame = window(subscription, remove=removed, insert=inserted, reset=reset)
        reset, removed, inserted, size = False, [], [], ENVELOPE_BYTES
        return encode(frame)

    for id in map(encode_part, remove):
        if removed and size + len(id) > max_bytes:
            yield part()
        removed.append(Raw(id))
        size += len(id) + 1
    for index, document in insert:
        if (removed or inserted) and size + len(document) > max_bytes:
            yield part()
        inserted.append((index, Raw(document)))
        size += len(document) + 10
    frame = window(
        subscription, remove=removed, insert=inserted, reset=reset, more=more, next=next, end=end
    )
    yield encode(frame)


def aggregate(
    subscription: str,
    groups: Sequence[Any],
    *,
    reset: bool = False,
    end: ResultEnd | None = None,
) -> Frame:
    """Return the groups of an aggregate that have changed, or a part of them.

    A group whose ``count`` is 0 is removed, unless it is the one without a ``key``. ``reset`` is
    whether all groups are removed before. ``end`` is None if further parts follow.
    """
    frame: Frame = {"type": "aggregate", "subscription": subscription}
    if reset:
        frame["reset"] = True
    frame["groups"] = groups
    return _ended(frame, end)


def aggregate_parts(
    subscription: str, groups: Iterable[bytes], *, reset: bool, end: ResultEnd, max_bytes: int
) -> Iterator[str]:
    """Yield groups that have changed, which are encoded, as frames of at most ``max_bytes``."""
    part: list[Raw] = []
    size = ENVELOPE_BYTES
    for group in groups:
        if part and size + len(group) > max_bytes:
            yield encode(aggregate(subscription, part, reset=reset))
            reset, part, size = False, [], ENVELOPE_BYTES
        part.append(Raw(group))
        size += len(group) + 1
    yield encode(aggregate(subscription, part, reset=reset, end=end))


def _ended(frame: Frame, end: ResultEnd | None) -> Frame:
    if end is None:
        frame["partial"] = True
        return frame
    frame["cursor"] = end.cursor
    if end.scope is not None:
        frame["scope"] = end.scope
    return frame

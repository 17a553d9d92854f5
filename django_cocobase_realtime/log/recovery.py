"""Resuming: whether a client that was away can be sent everything that it missed.

The answer is never partial. Either the client gets everything after its cursor, or it gets a
reason to fetch everything again. The same rules serve the streams of collections and of rooms.
"""

from __future__ import annotations

from ..conf import Limits
from .cursor import InvalidCursor, Position, decode
from .reader import StreamRange

REASONS = (
    "invalid_cursor",
    "scope_changed",
    "epoch_changed",
    "ahead_of_head",
    "retention",
    "replay_limit",
)


class Resync(Exception):
    """The client cannot resume and must fetch again. ``reason`` is one of ``REASONS``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def recover(
    stream: str,
    cursor: str,
    available: StreamRange | None,
    *,
    scope_changed: bool = False,
    max_events: int | None = None,
) -> Position:
    """Return the position that a client resumes from. Raises `Resync` if it cannot resume.

    ``stream`` is the name that the cursor was encoded with, and ``available`` the range of events
    that the stream still has, None if it has never had one. ``scope_changed`` says that the
    client may see other events than when it got the cursor. ``max_events`` bounds how many events
    are replayed.
    """
    try:
        position = decode(stream, cursor)
    except InvalidCursor:
        raise Resync("invalid_cursor") from None
    if scope_changed:
        raise Resync("scope_changed")
    if available is None or position.epoch != available.epoch:
        raise Resync("epoch_changed")
    if position.seq > available.head:
        raise Resync("ahead_of_head")
    if position.seq < available.floor:
        raise Resync("retention")
    if max_events is not None and available.head - position.seq > max_events:
        raise Resync("replay_limit")
    return position


def resume(
    collection: str,
    cursor: str,
    scope: str | None,
    available: StreamRange | None,
    current_scope: str,
    limits: Limits,
) -> Position:
    """Return the position that a subscription resumes from. Raises `Resync`.

    ``scope`` identifies what the client was allowed to see when it got the cursor, None if it
    does not say; ``current_scope`` what it may see now.
    """
    return recover(
        collection,
        cursor,
        available,
        scope_changed=scope is not None and scope != current_scope,
        max_events=limits.replay_events * limits.replay_pages,
    )

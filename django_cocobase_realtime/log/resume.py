"""The decision whether a client can resume from a cursor.

Either it gets all events after the cursor, or a reason why it must fetch everything again. The
rules are the same for the streams of collections and of rooms.
"""

from __future__ import annotations

from ..options import Limits
from .cursor import InvalidCursor, Position, decode
from .reader import StreamRange

# reasons for which a client cannot resume; the protocol reference explains them
REASONS = (
    "invalid_cursor",
    "scope_changed",
    "epoch_changed",
    "ahead_of_head",
    "retention",
    "replay_limit",
)


class Resync(Exception):
    """The client cannot resume, and must fetch everything again."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        # one of REASONS
        self.reason = reason


def resume_position(
    stream: str,
    cursor: str,
    available: StreamRange | None,
    *,
    scope_changed: bool = False,
    max_events: int | None = None,
) -> Position:
    """Return the position from which a client resumes. Raises `Resync` if it cannot.

    ``stream`` is the name of the stream, and ``available`` its range; None if it never had an
    event. ``scope_changed`` is whether the client may now see other events than when it got the
    cursor. ``max_events`` is the highest number of events to replay.
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


def resume_subscription(
    collection: str,
    cursor: str,
    scope: str | None,
    available: StreamRange | None,
    current_scope: str,
    limits: Limits,
) -> Position:
    """Return the position from which a subscription resumes. Raises `Resync` if it cannot.

    ``scope`` is that of the subscription from which the cursor comes, or None if the client does
    not send it. ``current_scope`` is that of the new subscription.
    """
    return resume_position(
        collection,
        cursor,
        available,
        scope_changed=scope is not None and scope != current_scope,
        max_events=limits.replay_events * limits.replay_pages,
    )

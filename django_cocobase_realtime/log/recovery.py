"""Resuming: whether a client that was away can have all it missed, and if not, why not.

The answer is never partial: everything after its cursor, or a reason to fetch afresh.
"""

from __future__ import annotations

from ..conf import Limits
from .cursor import InvalidCursor, Position, decode
from .reader import StreamRange


class Resync(Exception):
    """The client must fetch afresh. ``reason`` is what ``resync`` says on the wire."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


REASONS = (
    "invalid_cursor",
    "scope_changed",
    "epoch_changed",
    "ahead_of_head",
    "retention",
    "replay_limit",
)


def resume(
    collection: str,
    since: str,
    scope: str | None,
    extent: StreamRange | None,
    now: str,
    limits: Limits,
) -> Position:
    """The position to replay from. Raises `Resync`.

    ``scope`` is what the client's cursor was good for, ``now`` what it may see today.
    """
    try:
        position = decode(collection, since)
    except InvalidCursor:
        raise Resync("invalid_cursor") from None
    if scope is not None and scope != now:
        raise Resync("scope_changed")
    if extent is None or position.epoch != extent.epoch:
        raise Resync("epoch_changed")
    if position.seq > extent.head:
        raise Resync("ahead_of_head")
    if position.seq < extent.floor:
        raise Resync("retention")
    if extent.head - position.seq > limits.replay_events * limits.replay_pages:
        raise Resync("replay_limit")
    return position

"""Reports to clients that a subscription has ended, or may show nothing of what it was sent."""

from __future__ import annotations

import logging

from ..conf import conf
from ..metrics import metrics
from ..transport.connection import NATIVE
from ..wire import frames, sdk_frames
from ..wire.codes import ErrorCode, ResyncReason
from .subscription import Subscription

logger = logging.getLogger(__name__)

# message of the error with which a subscription ends
ENDED = "The subscription ended, because of an error in the server's code; subscribe again later."
# message of the error with which a subscription ends if it may see too much
TOO_MANY_KEYS = "The subscription ended, because the permission depends on too many related rows."
# message of the error with which a subscription ends if it makes the server hold too much
TOO_MANY_BYTES = (
    "The subscription ended, because your windows and aggregates have more than {} bytes. "
    "Use smaller windows, or fewer groups."
)
# message of the error with which a subscription ends if its aggregates have too many groups
TOO_MANY_GROUPS = (
    "The subscription ended, because its aggregates have more than {} groups. Use other fields in "
    "group_by, or a filter."
)


def report(subscription: Subscription, code: ErrorCode, message: str) -> None:
    """Report to the client that a subscription has ended."""
    connection = subscription.connection
    metrics.refusals[code] += 1
    if connection.dialect == NATIVE:
        frame = frames.error(code, message, subscription=subscription.name)
    else:
        frame = sdk_frames.error(message)
    connection.writer.push(frames.encode(frame))


def report_too_many_keys(subscription: Subscription) -> None:
    """Report that a key set of a permission has too many keys, after which a subscription ends."""
    connection, reason = subscription.connection, ResyncReason.LIMIT_EXCEEDED
    if connection.dialect == NATIVE:
        # the client may show nothing of what it was sent before
        frame = frames.resync(subscription.name, reason, scope=subscription.scope)
        connection.writer.push(frames.encode(frame))
    logger.error(
        "A queryset in visible_to of collection %r returns more than %d keys. Restrict it, or "
        "raise LIMITS['set_keys'].",
        subscription.collection,
        conf.limits.set_keys,
    )

"""The types and interfaces that the modules of the client share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .errors import RealtimeError

# a frame of the wire protocol, in either direction
Frame = Mapping[str, Any]
# gets the reply to a request, which may be an `error` frame
OnReply = Callable[[Frame], None]
# calls a function after a number of seconds
CallLater = Callable[[float, Callable[[], None]], object]


class SubscriptionListener(Protocol):
    """Receives what happens on one subscription, in the order of the stream."""

    def on_event(self, frame: Frame) -> None:
        """Handle the ``event`` frame of one change. Duplicates are already removed."""

    def on_snapshot(self, documents: list[Frame], truncated: bool) -> None:
        """Handle all documents that match now.

        ``truncated`` says that more documents match than the snapshot's limit.
        """

    def on_resync(self, reason: str) -> None:
        """Handle a gap: missed events cannot be delivered. A snapshot follows if requested."""

    def on_ready(self) -> None:
        """Handle the acceptance of the subscription; its snapshot, if any, has arrived."""

    def on_error(self, error: RealtimeError, *, final: bool) -> None:
        """Handle a refusal. ``final`` says that the subscription has ended.

        Otherwise only new options were refused, and the old ones stay in force.
        """

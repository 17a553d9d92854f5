"""The types and interfaces that the modules of the client share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from .errors import RealtimeError

# a frame of the wire protocol, in either direction
Frame = Mapping[str, Any]
# called with the reply to a request, which may be an `error` frame
OnReply = Callable[[Frame], None]
# calls a function after a number of seconds
CallLater = Callable[[float, Callable[[], None]], object]


class SubscriptionListener(Protocol):
    """Methods that a subscription calls with its events, in the order of the stream."""

    def on_event(self, frame: Frame) -> None:
        """Handle the event of one change, or of one document of a move.

        Duplicates are already removed.
        """

    def on_events_end(self) -> None:
        """Handle that all events, and the snapshot or result, of one frame were passed on."""

    def on_snapshot(self, documents: list[Frame], truncated: bool) -> None:
        """Handle a snapshot, which contains all documents that match now.

        With ``truncated`` there are more of them than the snapshot's limit allows.
        """

    def on_resync(self, reason: str) -> None:
        """Handle the loss of events that cannot be delivered any more.

        A snapshot or another result follows if the subscription requests one.
        """

    def on_user_changed(self) -> None:
        """Drop what belongs to the former user. The subscription begins again for another one."""

    def on_result(self, parts: list[Frame]) -> None:
        """Handle a change of the window or the aggregates, in one or several frames."""

    def on_ready(self) -> None:
        """Handle that the server has accepted the subscription and sent its result, if any.

        The result is a snapshot, a window or aggregates.
        """

    def on_error(self, error: RealtimeError, *, final: bool) -> None:
        """Handle a refusal by the server.

        With ``final`` the subscription has ended. Otherwise only new options were refused, and it
        continues with the old ones.
        """

    def on_failure(self, error: RealtimeError) -> None:
        """Handle an error in the server's code, after which the subscription is requested again."""

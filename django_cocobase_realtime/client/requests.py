"""Requests on the current connection and their replies, without I/O."""

from __future__ import annotations

from collections.abc import Callable

from .interfaces import CallLater, Frame, OnReply

# the reply to a request if there is no connection, or it is lost before the server answers
CONNECTION_LOST: Frame = {
    "type": "error",
    "code": "closed",
    "message": "The connection was lost.",
}


class RequestChannel:
    """Numbers requests, sends them on the current connection, and passes on their replies.

    Subscriptions and rooms, which continue on the next connection, use it as their only access to
    connections.
    """

    def __init__(self, send: Callable[[Frame], None], call_later: CallLater) -> None:
        # whether there is a socket and the server has authenticated this client
        self.connected = False
        # the id that the server has given to the current connection
        self.connection_id: str | None = None
        # sends a frame
        self._send = send
        # calls a function after a number of seconds
        self._call_later = call_later
        # whether there is a socket; before authentication, only `auth` may be sent on it
        self._open = False
        # functions that receive the replies to requests, by request id
        self._pending: dict[int, OnReply | None] = {}
        self._last_id = 0

    def handle_open(self) -> None:
        """Handle that a socket was opened."""
        self._open = True

    def handle_disconnect(self) -> None:
        """Handle the loss of the socket: answer pending requests with `CONNECTION_LOST`."""
        self.connected = self._open = False
        self.connection_id = None
        pending, self._pending = self._pending, {}
        for on_reply in pending.values():
            if on_reply is not None:
                on_reply(CONNECTION_LOST)

    def send(self, frame: Frame) -> None:
        """Send a frame that is not a request, so that the server does not reply to it."""
        self._send(frame)

    def send_request(self, frame: Frame, on_reply: OnReply | None = None) -> None:
        """Send a request, and call ``on_reply`` with the reply.

        The reply is `CONNECTION_LOST` if there is no connection, or it is lost before the reply.
        """
        if not (self.connected or (self._open and frame["type"] == "auth")):
            if on_reply is not None:
                on_reply(CONNECTION_LOST)
            return
        self._last_id += 1
        self._pending[self._last_id] = on_reply
        self._send({**frame, "id": self._last_id})

    def handle_reply(self, frame: Frame) -> bool:
        """Pass on a reply; return False if the frame does not reply to a pending request."""
        request_id = frame.get("id")
        if request_id not in self._pending:
            return False
        on_reply = self._pending.pop(request_id)
        if on_reply is not None:
            on_reply(frame)
        return True

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` after ``delay`` seconds, even if the connection is lost meanwhile."""
        self._call_later(delay, callback)

    def call_later_if_connected(self, delay: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` after ``delay`` seconds if the current connection still exists."""
        connection_id = self.connection_id

        def run() -> None:
            if self.connected and self.connection_id == connection_id:
                callback()

        self._call_later(delay, run)

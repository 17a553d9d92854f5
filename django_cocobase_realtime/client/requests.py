"""Requests on one connection after another: numbers, replies and timers. No I/O."""

from __future__ import annotations

from collections.abc import Callable

from .interfaces import CallLater, Frame, OnReply

# the reply to a request if the connection is lost before the server answers, or is not there
CONNECTION_LOST: Frame = {
    "type": "error",
    "code": "closed",
    "message": "The connection was lost.",
}


class RequestChannel:
    """Sends requests over the current connection, and passes each reply to the requester.

    Subscriptions and rooms outlive connections; this is all they need to know of them. ``send``
    transmits one frame; ``call_later`` calls a function after a number of seconds.
    """

    def __init__(self, send: Callable[[Frame], None], call_later: CallLater) -> None:
        # whether the server has accepted this client's authentication
        self.connected = False
        # the server's name for the current connection
        self.connection_id: str | None = None
        self._send = send
        self._call_later = call_later
        # whether there is a socket, on which `auth` may be sent
        self._open = False
        # what to do with the reply, by request id
        self._pending: dict[int, OnReply | None] = {}
        self._last_id = 0

    def handle_open(self) -> None:
        """Note that there is a socket."""
        self._open = True

    def handle_disconnect(self) -> None:
        """Note that the socket is gone, and answer pending requests with `CONNECTION_LOST`."""
        self.connected = self._open = False
        self.connection_id = None
        pending, self._pending = self._pending, {}
        for on_reply in pending.values():
            if on_reply is not None:
                on_reply(CONNECTION_LOST)

    def send(self, frame: Frame) -> None:
        """Send a frame to which the server sends no numbered reply."""
        self._send(frame)

    def send_request(self, frame: Frame, on_reply: OnReply | None = None) -> None:
        """Send a request and pass its reply to ``on_reply``.

        The reply is `CONNECTION_LOST` if there is no connection, or none any more.
        """
        if not (self.connected or (self._open and frame["type"] == "auth")):
            if on_reply is not None:
                on_reply(CONNECTION_LOST)
            return
        self._last_id += 1
        self._pending[self._last_id] = on_reply
        self._send({**frame, "id": self._last_id})

    def handle_reply(self, frame: Frame) -> bool:
        """Pass a frame to the requester; return False if it is no reply to a pending request."""
        request_id = frame.get("id")
        if request_id not in self._pending:
            return False
        on_reply = self._pending.pop(request_id)
        if on_reply is not None:
            on_reply(frame)
        return True

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` after ``delay`` seconds, with or without a connection."""
        self._call_later(delay, callback)

    def call_later_if_connected(self, delay: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` after ``delay`` seconds if the current connection still exists."""
        connection_id = self.connection_id

        def run() -> None:
            if self.connected and self.connection_id == connection_id:
                callback()

        self._call_later(delay, run)

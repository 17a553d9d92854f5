"""Requests on the current connection and their replies, without I/O."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from .errors import InvalidRequest
from .interfaces import CallLater, Frame, OnReply
from .rates import WINDOW, Lane, Request, TokenBucket
from .validation import byte_length, check_size, encode, prepare

# the reply to a request if there is no connection, or it is lost before the server answers
CONNECTION_LOST: Frame = {
    "type": "error",
    "code": "closed",
    "message": "The connection was lost.",
}
# the lane and the limit of each type of request; requests of one lane are sent in order
LANES: Mapping[str, tuple[str, str]] = {
    "subscribe": ("subscriptions", "subscribe_rate"),
    "unsubscribe": ("subscriptions", "messages_rate"),
    "join": ("rooms", "messages_rate"),
    "leave": ("rooms", "messages_rate"),
    "state": ("rooms", "messages_rate"),
    "broadcast": ("broadcasts", "broadcast_rate"),
}
OTHER_THREAD = (
    "This client is used in one event loop only. In other threads, use "
    "django_cocobase_realtime.client.sync."
)
# requests of a burst that the client leaves to `auth`
AUTH_REQUESTS = 2


class RequestChannel:
    """Numbers requests, sends them on the current connection, and passes on their replies.

    Subscriptions and rooms, which continue on the next connection, use it as their only access to
    connections.
    """

    def __init__(
        self,
        send: Callable[[Frame], None],
        call_later: CallLater,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        # whether there is a socket and the server has authenticated this client
        self.connected = False
        # the id that the server has given to the current connection
        self.connection_id: str | None = None
        # the limits that the server has sent, also after the connection is lost
        self.limits: Mapping[str, Any] = {}
        # sends a frame
        self._send = send
        # calls a function after a number of seconds
        self._call_later = call_later
        # returns seconds
        self._clock = clock
        # whether there is a socket; before authentication, only `auth` may be sent on it
        self._open = False
        # the thread of the event loop, after the first connection
        self._thread_id: int | None = None
        # requests without a reply, by request id
        self._pending: dict[int, tuple[Request, Lane | None]] = {}
        self._last_id = 0
        # number of the last request, in the order in which the program made them
        self._last_number = 0
        # the lanes of the current connection, by name
        self._lanes: dict[str, Lane] = {}
        # the rates of the current connection, by the name of the limit
        self._buckets: dict[str, TokenBucket] = {}

    def handle_open(self) -> None:
        """Handle that a socket was opened."""
        self._open = True
        self._thread_id = threading.get_ident()

    def handle_authenticated(self, connection_id: str | None, limits: Any) -> None:
        """Handle that the server has authenticated this client on a new connection."""
        self.connection_id = connection_id
        self.set_limits(limits)
        self.connected = True
        self._buckets = {}
        for name in ("messages_rate", "subscribe_rate", "broadcast_rate"):
            rate = self.limits.get(name)
            if rate and rate[0] > 0:
                burst = max(1, rate[1] - (AUTH_REQUESTS if name == "messages_rate" else 0))
                self._buckets[name] = TokenBucket(rate[0], burst, self._clock)
        self._lanes = {}
        for name, limit in dict(LANES.values()).items():
            is_unknown = name == "broadcasts" and limit not in self._buckets
            self._lanes[name] = Lane(
                self._transmit, self._call_later, self._clock, WINDOW if is_unknown else None
            )

    def set_limits(self, limits: Any) -> None:
        """Keep the limits that the server has sent, if any."""
        if isinstance(limits, Mapping):
            self.limits = limits

    def handle_disconnect(self) -> None:
        """Handle the loss of the socket: answer pending requests with `CONNECTION_LOST`."""
        self.connected = self._open = False
        self.connection_id = None
        pending, self._pending = self._pending, {}
        lanes, self._lanes = self._lanes, {}
        requests = [request for request, _ in pending.values()]
        for lane in lanes.values():
            requests += lane.close()
        for request in requests:
            if request.on_reply is not None:
                request.on_reply(CONNECTION_LOST)

    def prepare(self, frame: Frame) -> dict[str, Any]:
        """Return a copy of a request that the server can read.

        Raises ``TypeError`` if it is not JSON, `InvalidRequest` if the server would refuse it, and
        ``RuntimeError`` if called in another thread than that of the event loop.
        """
        self.check_thread()
        return prepare(frame, self.limits.get("message_bytes"))

    def check_state(self, state: Any) -> None:
        """Raise `InvalidRequest` if a state is larger than the server allows."""
        limit = self.limits.get("state_bytes")
        if limit is not None and byte_length(state) > limit:
            raise InvalidRequest("too_large", f"A state may have {limit} bytes at most.")

    def send(self, frame: Frame) -> None:
        """Send a frame that is not a request, so that the server does not reply to it."""
        self._send(frame)

    def send_request(self, frame: Frame, on_reply: OnReply | None = None) -> Request:
        """Send a request as soon as the server's rate allows, and pass its reply to ``on_reply``.

        The reply is `CONNECTION_LOST` if there is no connection, or it is lost before the reply.
        A refusal by rate is no reply: the request is sent again. The request that is returned can
        be cancelled until it is sent.
        """
        self.check_thread()
        kind = frame["type"]
        self._last_number += 1
        lane_name, limit = LANES.get(kind, ("", ""))
        bucket = self._buckets.get(limit)
        request = Request(self._last_number, frame, on_reply, limit, bucket)
        if not (self.connected or (self._open and kind == "auth")):
            if on_reply is not None:
                on_reply(CONNECTION_LOST)
        elif lane := self._lanes.get(lane_name):
            lane.push(request)
        else:
            request.is_sent = request.was_sent = True
            self._transmit(request)
        return request

    def handle_reply(self, frame: Frame) -> bool:
        """Pass on a reply; return False if the frame does not reply to a pending request."""
        request_id = frame.get("id")
        if request_id not in self._pending:
            return False
        request, lane = self._pending.pop(request_id)
        retry_after_ms = frame.get("retry_after_ms")
        if lane is None:
            pass
        elif frame.get("code") == "rate_limited" and retry_after_ms is not None:
            lane.handle_reply(request, retry_after_ms / 1000)
            return True
        else:
            lane.handle_reply(request, None)
        if request.on_reply is not None:
            request.on_reply(frame)
        return True

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` after ``delay`` seconds, even if the connection is lost meanwhile."""
        self._call_later(delay, callback)

    def repeat_later(
        self, delay: float, get_last: Callable[[], Request | None], repeat: Callable[[], None]
    ) -> None:
        """Call ``repeat`` after ``delay`` seconds if the current connection still exists.

        It is not called if ``get_last``, which returns the last request, returns another one then.
        """
        connection_id, last = self.connection_id, get_last()

        def run() -> None:
            is_connected = self.connected and self.connection_id == connection_id
            if is_connected and get_last() is last:
                repeat()

        self._call_later(delay, run)

    def check_thread(self) -> None:
        """Raise ``RuntimeError`` in another thread than that of the event loop."""
        if self._thread_id not in (None, threading.get_ident()):
            raise RuntimeError(OTHER_THREAD)

    def _transmit(self, request: Request) -> None:
        self._last_id += 1
        lane = self._lanes.get(LANES.get(request.frame["type"], ("", ""))[0])
        self._pending[self._last_id] = (request, lane)
        request.sent_frame = request.frame
        frame = {**request.frame, "id": self._last_id}
        try:
            # the limit may not have been known, or may have been another, when it was prepared
            check_size(encode(frame), self.limits.get("message_bytes"))
        except InvalidRequest as error:
            refusal = {"type": "error", "code": error.code, "message": error.args[0]}
            self._reply_later({**refusal, "id": self._last_id})
        else:
            self._send(frame)

    def _reply_later(self, reply: Frame) -> None:
        """Reply to a request after the call that has made it returned, as the server does."""

        def pass_on() -> None:
            self.handle_reply(reply)

        self._call_later(0, pass_on)

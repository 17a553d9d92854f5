"""The conversation on one socket after another. No I/O: frames in, frames out, times given."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .errors import CLOSED, RealtimeError, Reply, ensure_json
from .messages import Message
from .streams import Broadcaster
from .subscription import Sink, Subscription

if TYPE_CHECKING:
    from .room import Room

ACK = 32  # events between two acknowledgements
SLEPT = 5.0  # seconds without a tick: the machine was asleep
EXPIRY_SHARE = 0.8  # of a token's life, after which it is renewed
Frame = dict[str, Any]
Done = Callable[[Reply], None]


class Conversation:
    """State that outlives sockets: subscriptions and rooms; and that of the present one.

    ``send`` takes a frame, ``later`` calls back after seconds; both are the shell's. Times are
    seconds since 1970, which go on while a machine sleeps.
    """

    def __init__(
        self,
        *,
        send: Callable[[Frame], None],
        later: Callable[[float, Callable[[], None]], None],
        on_live: Callable[[Reply], None],
        on_error: Callable[[RealtimeError], None],
        timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.subscriptions: dict[str, Subscription] = {}
        self.rooms: dict[str, Room] = {}
        self.messages: Broadcaster[Message] = Broadcaster()
        self.live = False
        self.user: Mapping[str, str] | None = None
        self.connection: str | None = None
        self.latency: float | None = None
        self.since = 0.0  # live since
        self.renew_at: float | None = None
        self.closing: Reply | None = None
        self._send = send
        self._later = later
        self._on_live = on_live
        self._on_error = on_error
        self._timeout = timeout
        self._clock = clock
        self._open = False
        self._asks: dict[int, Done | None] = {}
        self._last = 0
        self._heartbeat = 25.0
        self._asked: float | None = None  # and nothing came since
        self._pinged = 0.0
        self._ticked = clock()
        self._events = 0

    # asking

    def subscribe(self, collection: str, options: Mapping[str, Any], sink: Sink) -> Subscription:
        """A subscription, asked for now or as soon as there is a connection."""
        ensure_json(options)
        self._last += 1
        name = f"{collection}#{self._last}"
        subscription = Subscription(self, name, collection, options, sink)
        self.subscriptions[name] = subscription
        if self.live:
            subscription.start()
        return subscription

    def ask(self, frame: Frame, done: Done | None = None) -> None:
        """Send a request; ``done`` gets its answer, or `CLOSED`."""
        if not (self.live or (self._open and frame["type"] == "auth")):
            if done is not None:
                done(CLOSED)
            return
        self._last += 1
        self._asks[self._last] = done
        self._send({**frame, "id": self._last})

    def soon(self, delay: float, act: Callable[[], None]) -> None:
        """Act after ``delay`` seconds, whatever the connection."""
        self._later(delay, act)

    def later(self, delay: float, act: Callable[[], None]) -> None:
        """Act after ``delay`` seconds, if this connection is still there then."""
        connection = self.connection

        def due() -> None:
            if self.live and self.connection == connection:
                act()

        self._later(delay, due)

    # the socket's life

    def opened(self, token: str | None) -> None:
        """A socket is open: authenticate."""
        self._open = True
        self._asked = self._ticked = self._clock()
        self.authenticate(token)

    def authenticate(self, token: str | None) -> None:
        """``auth``: the first time, or to renew the token."""
        frame: Frame = {"type": "auth", "batch": True}
        if token is not None:
            frame["token"] = token
        self.ask(frame, self._authenticated)

    def lost(self) -> float:
        """The socket is gone. Returns for how many seconds it was live."""
        lived = self._clock() - self.since if self.live else 0.0
        self.live = self._open = False
        self.connection = self.closing = self._asked = self.renew_at = None
        for subscription in self.subscriptions.values():
            subscription.active = False
        for room in self.rooms.values():
            room.lost()
        asks, self._asks = self._asks, {}
        for done in asks.values():
            if done is not None:
                done(CLOSED)
        return lived

    def tick(self) -> bool:
        """To be called about every second. False where the line is dead."""
        now = self._clock()
        slept = abs(now - self._ticked) > SLEPT  # or the clock was set back
        self._ticked = now
        if slept and self._asked is not None:
            self._asked = now  # the time asleep does not count
        if self._asked is not None and now - self._asked > self._timeout:
            return False
        if self.live and (slept or now - self._pinged >= self._heartbeat):
            self._asked = self._asked or now
            self._pinged = now
            self._sent = time.perf_counter()
            self._send({"type": "ping"})
        return True

    # frames

    def receive(self, frame: Reply) -> None:
        """A frame came in."""
        self._asked = None
        self._take(frame)

    def _take(self, frame: Reply) -> None:
        if frame.get("id") in self._asks:
            done = self._asks.pop(frame["id"])
            if done is not None:
                done(frame)
            return
        match frame.get("type"):
            case "events":
                for each in frame["events"]:
                    self._take(each)
            case "event" if frame["event"] == "direct" or frame.get("room") == "*":
                self.messages.put(Message.from_frame(frame))
            case "event" if "room" in frame:
                if room := self.rooms.get(frame["room"]):
                    room.said(frame)
            case "event":
                self._event(frame)
            case "snapshot" | "cursor":
                if subscription := self.subscriptions.get(frame["subscription"]):
                    subscription.take(frame)
            case "presence":
                if room := self.rooms.get(frame["room"]):
                    room.present(frame)
            case "pong":
                self.latency = time.perf_counter() - self._sent
            case "closing":
                self.closing = frame
            case "error":
                self._on_error(RealtimeError.from_frame(frame))

    _sent = 0.0

    def _event(self, frame: Reply) -> None:
        for name in frame.get("subscriptions", ()):
            if subscription := self.subscriptions.get(name):
                subscription.take(frame)
        if frame.get("cursor") is not None:
            self._events += 1
            if self._events % ACK == 0:
                self._send({"type": "ack", "cursor": frame["cursor"]})

    def _authenticated(self, reply: Reply) -> None:
        if reply["type"] == "error":
            if self.live:  # else the server closes, and says why
                self._on_error(RealtimeError.from_frame(reply))
            return
        self.user = reply.get("user")
        self.connection = reply.get("connection")
        self._heartbeat = float(reply.get("heartbeat", self._heartbeat))
        self._on_live(reply)
        if self.live:
            return
        self.live = True
        self.since = self._clock()
        self._pinged = 0.0
        for subscription in list(self.subscriptions.values()):
            subscription.start()
        for room in list(self.rooms.values()):
            room.join()

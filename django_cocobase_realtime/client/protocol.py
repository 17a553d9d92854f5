"""The client's side of the wire protocol, without I/O.

Frames are passed in as arguments and passed on to a function; the clock is an argument, too.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from .errors import RealtimeError
from .interfaces import CallLater, Frame, SubscriptionListener
from .messages import Message
from .requests import RequestChannel
from .room import Room
from .streams import Broadcaster
from .subscription import Subscription

# number of events after which an `ack` is sent
ACK_INTERVAL = 32
# seconds between two pings, until the server has sent another interval
DEFAULT_HEARTBEAT = 25.0
# seconds between two ticks from which it is concluded that the machine was asleep
SLEEP_THRESHOLD = 5.0


class ClientProtocol:
    """The state of a client: its subscriptions, its rooms and its current connection.

    Subscriptions and rooms continue after a lost connection: they are requested again on the next
    one.
    """

    def __init__(
        self,
        *,
        send: Callable[[Frame], None],
        call_later: CallLater,
        on_authenticated: Callable[[Frame, bool], None],
        on_auth_failure: Callable[[RealtimeError], None],
        on_error: Callable[[RealtimeError], None],
        timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        # subscriptions by the name that the client gave them
        self.subscriptions: dict[str, Subscription] = {}
        # rooms by name
        self.rooms: dict[str, Room] = {}
        # `id` and `name` of the authenticated user; None for an API key without a user
        self.user: Mapping[str, str] | None = None
        # seconds from the last ping to its pong
        self.latency: float | None = None
        # the `closing` frame, which the server sends before it closes the connection
        self.closing: Frame | None = None
        # called with each `authenticated` frame, and whether the connection or the user is new
        self._on_authenticated = on_authenticated
        # called if the server's code failed, so that it is not known whether the token is valid
        self._on_auth_failure = on_auth_failure
        # called with errors that belong to no request
        self._on_error = on_error
        # seconds that the server may take to answer
        self._timeout = timeout
        # returns seconds since 1970, and continues while the machine is asleep
        self._clock = clock
        # sends frames on the current socket
        self._channel = RequestChannel(send, call_later)
        # the project and the user of the last connection; None before the first one
        self._identity: tuple[Any, Any] | None = None
        # numbers that make the names of subscriptions unique
        self._subscription_numbers = itertools.count(1)
        # the iterators over messages to this user, and to all of the project
        self._messages: Broadcaster[Message] = Broadcaster()
        # time at which the current connection was authenticated
        self._connected_at = 0.0
        # seconds between two pings
        self._heartbeat = DEFAULT_HEARTBEAT
        # time of the first frame that the server has not answered; None after any frame from it,
        # and on a new connection after `authenticated`
        self._waiting_since: float | None = None
        # time of the last ping
        self._pinged_at = 0.0
        # the same by `perf_counter`, which measures the latency more precisely
        self._ping_started = 0.0
        # time of the last tick
        self._ticked_at = clock()
        # the subscriptions that got frames of a frame with several events; None outside of one
        self._batch: set[Subscription] | None = None
        # number of received events that have a cursor
        self._event_count = 0

    # for the program

    @property
    def connected(self) -> bool:
        """Whether there is a connection, and the server has authenticated it."""
        return self._channel.connected

    @property
    def connection_id(self) -> str | None:
        """The id that the server has given to the current connection."""
        return self._channel.connection_id

    def subscribe(
        self, collection: str, options: Mapping[str, Any], listener: SubscriptionListener
    ) -> Subscription:
        """Create a subscription, and request it as soon as there is a connection.

        Raises ``TypeError`` or ``ValueError`` if the server could not read the options.
        """
        name = f"{collection}#{next(self._subscription_numbers)}"
        subscription = Subscription(
            self._channel, name, collection, options, listener, self._remove_subscription
        )
        self.subscriptions[name] = subscription
        if self.connected:
            subscription.start()
        return subscription

    def enter_room(
        self,
        name: str,
        *,
        presence: bool,
        history: int | None,
        state: Mapping[str, Any] | None,
        on_resync: Callable[[str], Any] | None,
    ) -> Room:
        """Return a room; if it was not entered before, join it as soon as there is a connection.

        Raises ``TypeError`` or ``ValueError`` if the server could not read the state.
        """
        room = self.rooms.get(name)
        if room is not None:
            room.uses += 1
            return room
        room = self.rooms[name] = Room(
            self._channel,
            name,
            presence=presence,
            history=history,
            state=state,
            on_resync=on_resync,
            on_error=self._on_error,
            on_ended=self._remove_room,
            get_member_id=self._get_member_id,
            clock=self._clock,
        )
        room.uses = 1
        if self.connected:
            room.join()
        return room

    def messages(self) -> AsyncIterator[Message]:
        """Return an iterator over messages to this user and to all of the project."""
        return self._messages.iterate()

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        """Call ``callback`` after ``delay`` seconds, even if the connection is lost meanwhile."""
        self._channel.call_later(delay, callback)

    def end(self, reason: RealtimeError, *, final: bool) -> None:
        """End all subscriptions, rooms and iterators.

        With ``final`` the server does not let the client reconnect: iterators raise the reason,
        and there is no user any more.
        """
        if final:
            self.user = None
        for room in list(self.rooms.values()):
            room.end(reason, quiet=not final)
        for subscription in self.subscriptions.values():
            subscription.end()
        self._messages.end(reason if final else None)
        self.rooms.clear()
        self.subscriptions.clear()

    # for the connection

    def handle_open(self, token: str | None) -> None:
        """Authenticate on a socket that has just been opened."""
        self._channel.handle_open()
        self._waiting_since = self._ticked_at = self._clock()
        self.authenticate(token)

    def authenticate(self, token: str | None) -> None:
        """Send ``auth``, on a new connection or to renew the token of the current one."""
        frame: dict[str, Any] = {"type": "auth", "batch": True}
        if token is not None:
            frame["token"] = token
        self._channel.send_request(frame, self._handle_authenticated)

    def handle_disconnect(self) -> float:
        """Handle the loss of the socket; return for how many seconds it was authenticated."""
        connected_for = self._clock() - self._connected_at if self.connected else 0.0
        self._channel.handle_disconnect()
        self.closing = self._waiting_since = None
        for subscription in self.subscriptions.values():
            subscription.handle_disconnect()
        for room in self.rooms.values():
            room.handle_disconnect()
        return connected_for

    def handle_permissions_changed(self) -> None:
        """Let all subscriptions load their data again on the next connection."""
        for subscription in self.subscriptions.values():
            subscription.handle_permissions_changed()

    def handle_tick(self) -> None:
        """Let broadcasts fail that could not be sent for too long. Called about once per second."""
        for room in list(self.rooms.values()):
            room.handle_tick()

    def tick(self) -> bool:
        """Send a ping if it is due; return False if the server no longer answers.

        Must be called about once per second while there is a socket.
        """
        now = self._clock()
        was_asleep = abs(now - self._ticked_at) > SLEEP_THRESHOLD
        self._ticked_at = now
        if was_asleep and self._waiting_since is not None:
            self._waiting_since = now  # the time asleep does not count for the timeout
        if self._waiting_since is not None and now - self._waiting_since > self._timeout:
            return False
        if self.connected and (was_asleep or now - self._pinged_at >= self._heartbeat):
            self._waiting_since = self._waiting_since or now
            self._pinged_at = now
            self._ping_started = time.perf_counter()
            self._channel.send({"type": "ping"})
        return True

    def handle_frame(self, frame: Frame) -> None:
        """Handle one frame from the server."""
        if self.connected:
            self._waiting_since = None  # before, only an accepted `auth` is an answer
        self._dispatch(frame)

    # internal

    def _dispatch(self, frame: Frame) -> None:
        if self._channel.handle_reply(frame):
            return
        match frame.get("type"):
            case "events":
                batch = self._batch = set()
                try:
                    for event in frame["events"]:
                        self._dispatch(event)
                finally:
                    self._batch = None
                for touched in batch:
                    touched.handle_events_end()
            case "event" if frame["event"] == "direct" or frame.get("room") == "*":
                self._messages.put(Message.from_frame(frame))
            case "event" if "room" in frame:
                if room := self.rooms.get(frame["room"]):
                    room.handle_broadcast(frame)
            case "event":
                self._handle_event(frame)
            case "snapshot" | "cursor" | "moved" | "resync":
                self._pass_on(frame["subscription"], frame)
            case "window" | "aggregate":
                self._pass_on(frame["subscription"], frame)
                self._count_event(frame)
            case "members":
                if room := self.rooms.get(frame["room"]):
                    room.handle_members(frame)
            case "presence":
                if room := self.rooms.get(frame["room"]):
                    room.handle_presence(frame)
            case "pong":
                self.latency = time.perf_counter() - self._ping_started
            case "closing":
                self.closing = frame
            case "error":
                self._handle_error(frame)

    def _handle_error(self, frame: Frame) -> None:
        """Handle an error that replies to no request."""
        if subscription := self.subscriptions.get(frame.get("subscription", "")):
            subscription.handle_failure(frame)
        elif room := self.rooms.get(frame.get("room", "")):
            room.handle_failure(frame)
        else:
            self._on_error(RealtimeError.from_frame(frame))

    def _handle_event(self, frame: Frame) -> None:
        names = frame.get("subscriptions", ())
        for name in names:
            # each subscription has its own data, which the program may change
            self._pass_on(name, copy.deepcopy(frame) if len(names) > 1 else frame)
        self._count_event(frame)

    def _pass_on(self, name: str, frame: Frame) -> None:
        """Pass a frame on to a subscription, unless the program has stopped it."""
        if subscription := self.subscriptions.get(name):
            subscription.handle_frame(frame)
            if self._batch is None:
                subscription.handle_events_end()
            else:
                self._batch.add(subscription)

    def _count_event(self, frame: Frame) -> None:
        """Acknowledge the position of the events that have arrived, from time to time."""
        if frame.get("cursor") is not None:
            self._event_count += 1
            if self._event_count % ACK_INTERVAL == 0:
                self._channel.send({"type": "ack", "cursor": frame["cursor"]})

    def _handle_authenticated(self, reply: Frame) -> None:
        if reply["type"] == "error":
            # after a refusal of the first `auth`, the server closes with a code that is reported
            error = RealtimeError.from_frame(reply)
            if self.connected or error.is_failure:
                self._on_error(error)
            if error.is_failure:
                self._on_auth_failure(error)
            return
        renewed = self.connected
        self._heartbeat = float(reply.get("heartbeat", self._heartbeat))
        is_other_user = self._set_identity(reply)
        if renewed:
            self._channel.set_limits(reply.get("limits"))
        else:
            self._channel.handle_authenticated(reply.get("connection"), reply.get("limits"))
            self._connected_at = self._clock()
            self._pinged_at = 0.0
            self._waiting_since = None
        # the program may subscribe in a listener of `on_authenticated`
        subscriptions, rooms = list(self.subscriptions.values()), list(self.rooms.values())
        self._on_authenticated(reply, not renewed or is_other_user)
        if not renewed or is_other_user:
            for subscription in subscriptions:
                subscription.start()
            for room in rooms:
                room.join()

    def _set_identity(self, reply: Frame) -> bool:
        """Keep the user; if it is another one, drop what belongs to the former and return True."""
        self.user = reply.get("user")
        former, self._identity = self._identity, (reply.get("project"), (self.user or {}).get("id"))
        if former is None or former == self._identity:
            return False
        message = "The client came back as another user."
        error = RealtimeError("user_changed", message, source="connection")
        for room in list(self.rooms.values()):
            room.handle_user_changed(error)
        for subscription in list(self.subscriptions.values()):
            subscription.handle_user_changed()
        self._messages.clear()
        return True

    def _get_member_id(self) -> str | None:
        """Return this client's id as a member of rooms: that of its user, or of its connection."""
        return (self.user or {}).get("id") or self.connection_id

    def _remove_subscription(self, subscription: Subscription) -> None:
        self.subscriptions.pop(subscription.name, None)

    def _remove_room(self, room: Room) -> None:
        self.rooms.pop(room.name, None)

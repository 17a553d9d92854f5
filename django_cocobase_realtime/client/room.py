"""A room that a client has joined: its members, messages and pending broadcasts, without I/O."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from .backoff import Repetition
from .cursors import CursorTracker
from .errors import RealtimeError, call_safely, ensure_json
from .interfaces import Frame
from .messages import Message, Presence
from .requests import CONNECTION_LOST, RequestChannel
from .streams import Broadcaster, Ready

# seconds for which a broadcast may be sent again with the same idempotency key; the server
# remembers keys for five minutes, and would deliver a later repetition once more
IDEMPOTENCY_WINDOW = 240.0


class PendingBroadcast:
    """A broadcast that the server has not confirmed yet."""

    def __init__(self, frame: Frame, created_at: float) -> None:
        # the request
        self.frame = frame
        # seconds since 1970
        self.created_at = created_at
        # done when the server has confirmed the broadcast
        self.sent = Ready()


class Room:
    """A room that this client has joined.

    After a lost connection it is joined again automatically, until `leave` is called. As an
    asynchronous iterator, a room yields the same as `messages`.
    """

    def __init__(
        self,
        channel: RequestChannel,
        name: str,
        *,
        presence: bool,
        history: int | None,
        state: Mapping[str, Any] | None,
        on_resync: Callable[[str], None] | None,
        on_error: Callable[[RealtimeError], None],
        on_ended: Callable[[Room], None],
        get_member_id: Callable[[], str | None],
        clock: Callable[[], float],
    ) -> None:
        ensure_json(state)
        self.name = name
        # the room's title, or its name if it has none
        self.title = name
        # the members: mappings with `id`, `name` and, if they have one, `state`; unchanged while
        # the connection is lost, and empty after `leave`
        self.members: tuple[Mapping[str, Any], ...] = ()
        # number of members
        self.participants = 0
        # this client's own state, which the other members see
        self.state = state
        self._channel = channel
        # whether this client is among the members
        self._presence = presence
        # number of the last messages to request
        self._history = history
        # called with a reason if messages were missed that the room no longer keeps
        self._on_resync = on_resync
        # called with the error if joining is refused
        self._on_error = on_error
        # called when the room has been left, or joining it was refused
        self._on_ended = on_ended
        # returns this client's id among the members
        self._get_member_id = get_member_id
        # returns seconds since 1970
        self._clock = clock
        # whether the room is joined on the current connection
        self._joined = False
        # whether the room has been left, or joining it was refused
        self._ended = False
        # position in the room's history
        self._position = CursorTracker()
        # delays of further requests to join after the server's code failed
        self._repetition = Repetition()
        # broadcasts that are not confirmed, oldest first, as keys of a dictionary
        self._outbox: dict[PendingBroadcast, None] = {}
        # done when the room is joined
        self._ready = Ready()
        # the iterators of `messages`
        self._messages: Broadcaster[Message] = Broadcaster()
        # the iterators of `presence`
        self._presence_changes: Broadcaster[Presence] = Broadcaster()

    async def ready(self) -> Room:
        """Wait until the room is joined, and return it.

        Raises `RealtimeError` if the server refuses, or if the room is left while waiting.
        """
        await self._ready.wait()
        return self

    async def broadcast(self, message: Any, *, echo: bool = True, ephemeral: bool = False) -> None:
        """Send a message, which is any JSON value, to everyone in the room.

        Returns when the server has confirmed it. After a lost connection the message is sent
        again, but not delivered twice. With ``echo=False`` it is not delivered to this client. With
        ``ephemeral=True`` it is not kept, even if the room has a history.

        Raises ``TypeError`` or ``ValueError`` if the message is not JSON, and `RealtimeError` if
        the server refuses it, the room is left, or it could not be sent for four minutes.
        """
        if self._ended:
            raise RealtimeError("closed", "The room was left.")
        ensure_json(message)
        frame = {"type": "broadcast", "room": self.name, "message": message}
        if not echo:
            frame["echo"] = False
        if ephemeral:
            frame["ephemeral"] = True
        frame["idempotency_key"] = secrets.token_urlsafe(12)
        broadcast = PendingBroadcast(frame, self._clock())
        self._outbox[broadcast] = None
        if self._joined:
            self._send_broadcast(broadcast)
        await broadcast.sent.wait()

    async def set_state(self, state: Mapping[str, Any]) -> None:
        """Replace this client's state, which the other members see, such as ``{"typing": True}``.

        By default the server accepts states of up to 1 KiB. Raises ``TypeError`` or ``ValueError``
        if the state is not JSON, and `RealtimeError` if the server refuses it.
        """
        ensure_json(state)
        self.state = state
        if not self._joined:
            return  # it is sent with the next join
        answered = asyncio.get_running_loop().create_future()

        def handle_reply(reply: Frame) -> None:
            if answered.done():
                return
            if reply["type"] == "error" and reply is not CONNECTION_LOST:
                answered.set_exception(RealtimeError.from_frame(reply))
            else:
                answered.set_result(None)

        self._channel.send_request(
            {"type": "state", "room": self.name, "state": dict(state)}, handle_reply
        )
        await answered
        own_id = self._get_member_id()
        self.members = tuple(
            {**member, "state": state} if member["id"] == own_id else member
            for member in self.members
        )

    def messages(self) -> AsyncIterator[Message]:
        """Return an iterator over the `Message` objects that arrive from now on.

        These include the messages requested with ``history``. The iterator ends when the room is
        left or the client is closed, and raises `RealtimeError` if the server refuses the join.
        """
        return self._messages.iterate()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self.messages()

    def presence(self) -> AsyncIterator[Presence]:
        """Return an iterator over the `Presence` changes that arrive from now on.

        When it yields a change, ``members`` already includes it. The iterator ends like that of
        `messages`.
        """
        return self._presence_changes.iterate()

    def leave(self) -> None:
        """Leave the room and end its iterators. A second call does nothing."""
        if self._ended:
            return
        self._on_ended(self)
        self._channel.send_request({"type": "leave", "room": self.name})
        self.end(RealtimeError("closed", "The room was left."), quiet=True)

    # called by the protocol

    def join(self) -> None:
        """Request to join the room; called on each new connection."""
        if self._ended:
            return  # it was left before a scheduled retry
        frame: dict[str, Any] = {"type": "join", "room": self.name}
        if not self._presence:
            frame["presence"] = False
        if self.state is not None:
            frame["state"] = dict(self.state)
        if self._history:
            frame["history"] = self._history
        if self._position.cursor is not None:
            frame["since"] = self._position.cursor
        self._channel.send_request(frame, self._handle_join_reply)

    def handle_disconnect(self) -> None:
        """Handle the loss of the connection; `join` is called on the next one."""
        self._joined = False

    def handle_failure(self, frame: Frame) -> None:
        """Handle that the server's code failed: report it, and join again later."""
        self._joined = False
        error = RealtimeError.from_frame(frame)
        delay = self._repetition.next_delay(error.retry_after_ms)
        self._channel.call_later_if_connected(delay, self.join)
        self._ready.fail(error)
        self._ready = Ready()
        self._on_error(error)

    def handle_broadcast(self, frame: Frame) -> None:
        """Handle a ``broadcast`` event."""
        if self._position.advance(frame):
            self._messages.put(Message.from_frame(frame))

    def handle_presence(self, frame: Frame) -> None:
        """Handle a ``presence`` frame."""
        changed = frame["member"]
        members = {member["id"]: member for member in self.members}
        if frame["event"] == "left":
            members.pop(changed["id"], None)
        else:
            members[changed["id"]] = changed
        self.members, self.participants = tuple(members.values()), frame["participants"]
        self._presence_changes.put(Presence(frame["event"], changed, frame["participants"]))

    def handle_members(self, frame: Frame) -> None:
        """Handle some of the members; the room is ready when there are no more."""
        members = {member["id"]: member for member in (*self.members, *frame["members"])}
        self.members = tuple(members.values())
        if not frame.get("more"):
            self._ready.done()

    def end(self, error: RealtimeError, *, quiet: bool = False) -> None:
        """End the room. Pending calls raise ``error``, and so do iterators unless ``quiet``."""
        self._ended = True
        self._joined = False
        self.members, self.participants = (), 0
        outbox, self._outbox = self._outbox, {}
        for broadcast in outbox:
            broadcast.sent.fail(error)
        self._ready.fail(error)
        self._messages.end(None if quiet else error)
        self._presence_changes.end(None if quiet else error)

    # internal

    def _handle_join_reply(self, reply: Frame) -> None:
        if reply is CONNECTION_LOST or self._ended:
            return
        if reply["type"] != "error":
            self._handle_joined(reply)
        elif RealtimeError.from_frame(reply).is_failure:
            self.handle_failure(reply)
        elif reply.get("retry_after_ms") is not None:
            self._channel.call_later_if_connected(reply["retry_after_ms"] / 1000, self.join)
        else:
            self._on_ended(self)
            error = RealtimeError.from_frame(reply)
            self.end(error)
            self._on_error(error)

    def _handle_joined(self, reply: Frame) -> None:
        self._joined = True
        self._repetition.reset()
        self.title = reply.get("title", self.name)
        if not reply.get("resumed"):
            self._position.cursor = reply.get("cursor")
        if "resync" in reply and self._on_resync is not None:
            call_safely(self._on_resync, reply["resync"]["reason"])
        self.members, self.participants = (), reply["participants"]
        self.handle_members(reply)
        for broadcast in list(self._outbox):
            self._send_broadcast(broadcast)

    def _send_broadcast(self, broadcast: PendingBroadcast) -> None:
        if self._clock() - broadcast.created_at >= IDEMPOTENCY_WINDOW:
            self._outbox.pop(broadcast, None)
            broadcast.sent.fail(RealtimeError("closed", "There was no connection for too long."))
            return

        def handle_reply(reply: Frame) -> None:
            if reply is CONNECTION_LOST:
                return  # it is sent again after the next join
            self._outbox.pop(broadcast, None)
            if reply["type"] == "error":
                broadcast.sent.fail(RealtimeError.from_frame(reply))
            else:
                broadcast.sent.done()

        self._channel.send_request(broadcast.frame, handle_reply)

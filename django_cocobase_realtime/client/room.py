"""A room that a client has joined: its members, messages and pending broadcasts, without I/O."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import Any

from .backoff import Repetition
from .cursors import CursorTracker
from .errors import RealtimeError, call_safely
from .interfaces import Frame
from .messages import Message, Presence
from .outbox import Outbox
from .own_state import OwnState
from .rates import Request
from .requests import CONNECTION_LOST, RequestChannel
from .streams import Broadcaster, Ready

# codes with which a join may be refused because of its state
STATE_REFUSALS = frozenset({"bad_request", "too_large"})
# messages that are kept for the first iterator, at least
BACKLOG = 100


class Room:
    """A room that this client has joined.

    After a lost connection it is joined again automatically, until `leave` has been called as
    often as `Realtime.room` has returned it. ``async with`` leaves it at the end. As an
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
        on_resync: Callable[[str], Any] | None,
        on_error: Callable[[RealtimeError], None],
        on_ended: Callable[[Room], None],
        get_member_id: Callable[[], str | None],
        clock: Callable[[], float],
    ) -> None:
        self.name = name
        # the room's title, or its name if it has none
        self.title = name
        # the members: mappings with `id`, `name` and, if they have one, `state`; unchanged while
        # the connection is lost, and empty after `leave`
        self.members: tuple[Mapping[str, Any], ...] = ()
        # number of members
        self.participants = 0
        # how often the room was entered and not left
        self.uses = 0
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
        # whether the room has been left, or joining it was refused
        self._ended = False
        # position in the room's history
        self._position = CursorTracker()
        # delays of further requests to join after the server's code failed
        self._repetition = Repetition()
        # the members by id
        self._members: dict[str, Mapping[str, Any]] = {}
        # the last request to join
        self._request: Request | None = None
        # whether it was sent on the current connection
        self._requested = False
        channel.prepare({"type": "join", "room": name, "history": history})
        # this client's state
        self._state = OwnState(channel, name, state, self._show_own_state)
        # broadcasts that are not confirmed
        self._outbox = Outbox(channel, name, clock)
        # done when the room is joined
        self._ready = Ready()
        # the iterators of `messages`
        self._messages: Broadcaster[Message] = Broadcaster(max(BACKLOG, history or 0))
        # the iterators of `presence`
        self._presence_changes: Broadcaster[Presence] = Broadcaster()

    @property
    def state(self) -> Mapping[str, Any] | None:
        """The own state of this client, which the other members see."""
        return copy.deepcopy(self._state.newest)

    async def ready(self) -> Room:
        """Wait until the room is joined, and return it.

        Raises `RealtimeError` if the server refuses, or if the room is left while waiting.
        """
        await self._ready.wait()
        return self

    async def broadcast(self, message: Any, *, echo: bool = True, ephemeral: bool = False) -> None:
        """Send a message, which is any JSON value, to everyone in the room.

        Returns when the server has confirmed it. Messages are sent in order, and not faster than
        the server allows. After a lost connection the message is sent again, but not delivered
        twice. With ``echo=False`` it is not delivered to this client. With ``ephemeral=True`` it is
        not kept, even if the room has a history. If the caller is cancelled before the message is
        sent, it is not sent later.

        Raises ``TypeError`` if the message is not JSON, and `RealtimeError` if the server refuses
        it or would refuse it, the room is left, it could not be sent for four minutes, or the
        client came back as another user.
        """
        self._check_open()
        await self._outbox.broadcast(message, echo=echo, ephemeral=ephemeral)

    async def set_state(self, state: Mapping[str, Any]) -> None:
        """Replace this client's state, which the other members see, such as ``{"typing": True}``.

        Returns when the server has accepted it, or a newer one: of several states that wait, only
        the newest is sent. Without a connection it returns at once, and the state is sent with the
        next join. Raises ``TypeError`` if the state is not JSON, and `RealtimeError` if the server
        refuses it; the last accepted state stays then.
        """
        self._check_open()
        await self._state.set(state)

    def messages(self) -> AsyncIterator[Message]:
        """Return an iterator over the `Message` objects that arrive from now on.

        The first iterator also yields the messages before it, such as those requested with
        ``history``. The iterator ends when the room is left or the client is closed, and raises
        `RealtimeError` if the server refuses the join.
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
        """Leave the room and end its iterators.

        If `Realtime.room` has returned the room several times, the others keep it: it is left when
        `leave` has been called as often. Further calls do nothing.
        """
        self._channel.check_thread()
        self.uses -= 1
        if self._ended or self.uses > 0:
            return
        self._on_ended(self)
        self._withdraw()
        if self._requested:
            self._channel.send_request({"type": "leave", "room": self.name})
        reason = RealtimeError("closed", "The room was left.", source="connection", room=self.name)
        self.end(reason, quiet=True)

    async def __aenter__(self) -> Room:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.leave()

    # called by the protocol

    def join(self) -> None:
        """Request to join the room; called on each new connection."""
        if self._ended:
            return  # it was left before a scheduled retry
        frame: dict[str, Any] = {"type": "join", "room": self.name}
        if not self._presence:
            frame["presence"] = False
        state = self._state.newest
        if state is not None:
            frame["state"] = state
        if self._history:
            frame["history"] = self._history
        if self._position.cursor is not None:
            frame["since"] = self._position.cursor
        self._withdraw()
        self._request = self._channel.send_request(
            frame, lambda reply: self._handle_join_reply(reply, state)
        )

    def handle_disconnect(self) -> None:
        """Handle the loss of the connection; `join` is called on the next one."""
        self._request, self._requested = None, False
        self._state.close()
        self._outbox.close()

    def handle_user_changed(self, error: RealtimeError) -> None:
        """Drop what belongs to the former user, whose broadcasts fail; `join` must be called."""
        self._outbox.close()
        self._outbox.fail(error)
        self._state.reset(error)
        self._position = CursorTracker()
        self._set_members({}, 0)
        self._messages.clear()
        self._presence_changes.clear()
        if self._ready.is_settled:
            self._ready = Ready()

    def handle_tick(self) -> None:
        """Let broadcasts fail that could not be sent for too long."""
        self._outbox.expire()

    def handle_failure(self, frame: Frame) -> None:
        """Handle that the server's code failed: report it, and join again later."""
        self._state.close()
        self._outbox.close()
        error = RealtimeError.from_frame(frame)
        error.room = self.name
        self._join_later(self._repetition.next_delay(error.retry_after_ms))
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
        members = dict(self._members)
        if frame["event"] == "left":
            members.pop(changed["id"], None)
        else:
            members[changed["id"]] = changed
        self._set_members(members, frame["participants"])
        member = copy.deepcopy(changed)
        self._presence_changes.put(Presence(frame["event"], member, frame["participants"]))

    def handle_members(self, frame: Frame) -> None:
        """Handle some of the members; the room is ready when there are no more."""
        members = {member["id"]: member for member in frame["members"]}
        self._set_members({**self._members, **members}, self.participants)
        if not frame.get("more"):
            self._ready.done()

    def end(self, error: RealtimeError, *, quiet: bool = False) -> None:
        """End the room. Pending calls raise ``error``, and so do iterators unless ``quiet``."""
        self._ended = True
        self._set_members({}, 0)
        self._outbox.close()
        self._outbox.fail(error)
        self._state.fail(error)
        self._ready.fail(error)
        self._messages.end(None if quiet else error)
        self._presence_changes.end(None if quiet else error)

    # internal

    def _check_open(self) -> None:
        if self._ended:
            message = "The room was left."
            raise RealtimeError("closed", message, source="connection", room=self.name)

    def _withdraw(self) -> None:
        """Cancel the last request to join if it was not sent."""
        if self._request is not None:
            self._request.cancel()
            self._requested = self._requested or self._request.was_sent
            self._request = None

    def _set_members(self, members: dict[str, Mapping[str, Any]], participants: int) -> None:
        self._members = members
        self.members = tuple(dict(member) for member in members.values())
        self.participants = participants

    def _show_own_state(self, state: Mapping[str, Any]) -> None:
        """Show this client's new state among the members."""
        own_id = self._get_member_id() or ""
        if member := self._members.get(own_id):
            members = {**self._members, own_id: {**member, "state": copy.deepcopy(state)}}
            self._set_members(members, self.participants)

    def _handle_join_reply(self, reply: Frame, state: Mapping[str, Any] | None) -> None:
        if reply is CONNECTION_LOST or self._ended:
            return
        if reply["type"] != "error":
            self._handle_joined(reply, state)
        elif RealtimeError.from_frame(reply).is_failure:
            self.handle_failure(reply)
        elif reply.get("retry_after_ms") is not None:
            self._join_later(reply["retry_after_ms"] / 1000)
        else:
            error = RealtimeError.from_frame(reply)
            error.room = self.name
            if error.code in STATE_REFUSALS and self._state.handle_join_refused(state):
                # a state that the server has not accepted must not cost the room
                self._on_error(error)
                self.join()
                return
            self._on_ended(self)
            self.end(error)
            self._on_error(error)

    def _join_later(self, delay: float) -> None:
        """Request to join again, unless that happens before for another reason."""
        self._channel.repeat_later(delay, lambda: self._request, self.join)

    def _handle_joined(self, reply: Frame, state: Mapping[str, Any] | None) -> None:
        self._repetition.reset()
        self.title = reply.get("title", self.name)
        if not reply.get("resumed"):
            self._position.cursor = reply.get("cursor")
        if "resync" in reply and self._on_resync is not None:
            call_safely(self._on_error, self._on_resync, reply["resync"]["reason"])
        self._set_members({}, reply["participants"])
        self._state.handle_joined(state)
        self.handle_members(reply)
        self._outbox.open()

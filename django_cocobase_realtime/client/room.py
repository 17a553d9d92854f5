"""One room over many connections: members, what is said, what one says. No I/O of its own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

from .errors import CLOSED, RealtimeError, Reply, call_safely, ensure_json
from .messages import Message, Presence
from .streams import Broadcaster, Ready
from .subscription import Seen

if TYPE_CHECKING:
    from .protocol import Conversation

FORGOTTEN = 240.0  # seconds after which the server may not know a broadcast's key any more


class _Said:
    """A broadcast that is not yet known to be sent."""

    def __init__(self, frame: dict[str, Any], at: float) -> None:
        self.frame = frame
        self.at = at
        self.sent = Ready()


class Room:
    """A room that this client is in until `leave`, whatever becomes of the connection.

    ``members`` are mappings with ``id``, ``name`` and, where they have one, ``state``.
    """

    def __init__(
        self,
        talk: Conversation,
        name: str,
        *,
        presence: bool,
        history: int | None,
        state: Mapping[str, Any] | None,
        on_error: Callable[[RealtimeError], None],
        on_resync: Callable[[str], None] | None,
        clock: Callable[[], float],
    ) -> None:
        ensure_json(state)
        self.name = self.title = name
        self.members: tuple[Mapping[str, Any], ...] = ()
        self.participants = 0
        self.state = state
        self._talk = talk
        self._presence = presence
        self._history = history
        self._on_error = on_error
        self._on_resync = on_resync
        self._clock = clock
        self._joined = False
        self._seen = Seen()
        self._outbox: dict[_Said, None] = {}
        self._ready = Ready()
        self._messages: Broadcaster[Message] = Broadcaster()
        self._presences: Broadcaster[Presence] = Broadcaster()

    async def ready(self) -> Room:
        """Wait until joined. Raises `RealtimeError` where it is refused."""
        await self._ready.wait()
        return self

    async def broadcast(self, message: Any, *, echo: bool = True, ephemeral: bool = False) -> None:
        """Say any JSON to everyone here, once, however often the connection is lost meanwhile.

        Without ``echo`` it does not come back to us; a room that keeps history keeps nothing
        ``ephemeral``.
        Returns when the server has it. Raises `RealtimeError` where it is refused, or could not
        be sent for minutes.
        """
        if self._talk.rooms.get(self.name) is not self:
            raise RealtimeError("closed", "The room was left.")
        ensure_json(message)
        frame = {"type": "broadcast", "room": self.name, "message": message}
        if not echo:
            frame["echo"] = False
        if ephemeral:
            frame["ephemeral"] = True
        said = _Said({**frame, "idempotency_key": secrets.token_urlsafe(12)}, self._clock())
        self._outbox[said] = None
        if self._joined:
            self._say(said)
        await said.sent.wait()

    async def set_state(self, state: Mapping[str, Any]) -> None:
        """Tell the others something about oneself, such as ``{"typing": True}``; at most 1 KiB."""
        ensure_json(state)
        self.state = state
        if not self._joined:
            return  # told with the join
        answered = asyncio.get_running_loop().create_future()

        def answer(reply: Reply) -> None:
            if answered.done():
                return
            if reply["type"] == "error" and reply is not CLOSED:
                answered.set_exception(RealtimeError.from_frame(reply))
            else:
                answered.set_result(None)

        self._talk.ask({"type": "state", "room": self.name, "state": dict(state)}, answer)
        await answered
        me = (self._talk.user or {}).get("id") or self._talk.connection
        self.members = tuple(
            {**each, "state": state} if each["id"] == me else each for each in self.members
        )

    def messages(self) -> AsyncIterator[Message]:
        """What is said from here on, and what ``history`` brings."""
        return self._messages.iterate()

    def __aiter__(self) -> AsyncIterator[Message]:
        return self.messages()

    def presence(self) -> AsyncIterator[Presence]:
        """Who comes, goes and changes state from here on; ``members`` is already so."""
        return self._presences.iterate()

    def leave(self) -> None:
        """Leave; readers end."""
        if self._talk.rooms.get(self.name) is not self:
            return
        del self._talk.rooms[self.name]
        self._talk.ask({"type": "leave", "room": self.name})
        self.end(RealtimeError("closed", "The room was left."), quietly=True)

    # what the conversation calls

    def join(self) -> None:
        """Ask to be let in, again after each loss."""
        if self._talk.rooms.get(self.name) is not self:
            return  # left while it waited for its turn
        frame: dict[str, Any] = {"type": "join", "room": self.name}
        if not self._presence:
            frame["presence"] = False
        if self.state is not None:
            frame["state"] = dict(self.state)
        if self._history:
            frame["history"] = self._history
        if self._seen.cursor is not None:
            frame["since"] = self._seen.cursor
        self._talk.ask(frame, self._answered)

    def lost(self) -> None:
        """The connection is gone; members stay as they were until it is back."""
        self._joined = False

    def end(self, error: RealtimeError, *, quietly: bool = False) -> None:
        """It is over: whoever waits is told."""
        self._joined = False
        self.members, self.participants = (), 0
        outbox, self._outbox = self._outbox, {}
        for said in outbox:
            said.sent.fail(error)
        self._ready.fail(error)
        for readers in (self._messages, self._presences):
            readers.end(None if quietly else error)

    def said(self, frame: Reply) -> None:
        """A ``broadcast`` event."""
        if self._seen.is_new(frame):
            self._messages.put(Message.from_frame(frame))

    def present(self, frame: Reply) -> None:
        """A ``presence`` frame."""
        member = frame["member"]
        members = {each["id"]: each for each in self.members}
        if frame["event"] == "left":
            members.pop(member["id"], None)
        else:
            members[member["id"]] = member
        self.members, self.participants = tuple(members.values()), frame["participants"]
        self._presences.put(Presence(frame["event"], member, frame["participants"]))

    def _answered(self, reply: Reply) -> None:
        if reply is CLOSED or self._talk.rooms.get(self.name) is not self:
            return
        if reply["type"] != "error":
            self._joined = True
            self.title = reply.get("title", self.name)
            if not reply.get("resumed"):
                self._seen.cursor = reply.get("cursor")
            if "resync" in reply and self._on_resync is not None:
                call_safely(self._on_resync, reply["resync"]["reason"])
            self.members, self.participants = tuple(reply["members"]), reply["participants"]
            self._ready.done()
            for said in list(self._outbox):
                self._say(said)
        elif reply.get("retry_after_ms") is not None:
            self._talk.later(reply["retry_after_ms"] / 1000, self.join)
        else:
            del self._talk.rooms[self.name]
            error = RealtimeError.from_frame(reply)
            self.end(error)
            self._on_error(error)

    def _say(self, said: _Said) -> None:
        def answer(reply: Reply) -> None:
            if reply is CLOSED:
                return  # and again once we are back
            self._outbox.pop(said, None)
            if reply["type"] == "error":
                said.sent.fail(RealtimeError.from_frame(reply))
            else:
                said.sent.done()

        if self._clock() - said.at < FORGOTTEN:
            self._talk.ask(said.frame, answer)
        else:
            self._outbox.pop(said, None)
            said.sent.fail(RealtimeError("closed", "The connection was away for too long."))

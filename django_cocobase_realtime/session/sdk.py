"""A connection of the published SDKs: the same session, in their words.

The path says what it is for; the first frame says who it is. Each frame of theirs becomes the
native command that it means, and of the answers those are told that they know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..conf import Limits
from ..events import PROJECT_ROOM
from ..fanout.connection import Connection
from ..room import RoomGrant
from ..rooms.rooms import Joined, Wish
from ..wire import messages, native, sdk
from ..wire.codes import CloseCode, ErrorCode
from ..wire.scan import is_sound
from . import authentication, rooms, subscriptions
from .effects import Enter, Permit, Replay, Send, Settle, Steps
from .machine import Session

DENIED = "Collection not found or access denied"


class SdkSession(Session):
    """``dialect`` is one of ``wire.sdk``; ``name`` the collection or room of the path."""

    def __init__(
        self,
        connection: Connection,
        limits: Limits,
        *,
        dialect: str,
        name: str,
        heartbeat: int,
        now: float,
    ) -> None:
        super().__init__(connection, limits, heartbeat=heartbeat, now=now)
        connection.dialect = dialect
        self.name = name
        self._explained = False
        self._opened = False

    # how a session talks

    def closing(self, code: CloseCode, retry_after_ms: int | None) -> native.Frame | None:
        """Why it ends, unless an error has just said so."""
        return None if self._explained else sdk.closing(code)

    def error(
        self, code: ErrorCode, message: str, id: Any = None, retry_after_ms: int | None = None
    ) -> Send:
        """An error in this dialect; what the SDKs know by another name gets it."""
        known = {
            ErrorCode.AUTHENTICATION_FAILED: sdk.BAD_KEY,
            ErrorCode.UNKNOWN_COLLECTION: sdk.error(DENIED),
            ErrorCode.INVALID_FILTER: sdk.error("Invalid filter", message),
        }
        return Send(known.get(code) or sdk.error(message))

    # frames

    def receive(self, text: str | None, now: float) -> Steps:
        """A frame came in; None stands for a binary one."""
        if self.closed:
            return
        limit = self.limits.message_bytes if self._opened else self.limits.auth_bytes
        if text is None:
            yield from self._garbage("Send JSON in text frames.", now)
        elif len(text) > limit or len(text.encode("utf-8", "surrogatepass")) > limit:
            yield from self._garbage(f"A frame may have {limit} bytes at most.", now)
        elif text == "ping":
            yield from self._ping({"event": "pong"}, now)
        else:
            try:
                frame = sdk.read(text)
            except sdk.InvalidFrame as error:
                yield from self._garbage(str(error), now)
                return
            if frame.get("type") == "ping":
                yield from self._ping({"type": "pong"}, now)
            elif self._opened:
                yield from self._later(frame, now)
            else:
                yield from self._first(frame)

    def _garbage(self, detail: str, now: float) -> Steps:
        if not self._opened:
            yield from self._refuse(
                sdk.error("Authentication failed", detail), CloseCode.BAD_CREDENTIAL
            )
            return
        yield Send(sdk.error("Invalid JSON"))
        yield from self.count_bad(now)

    def _ping(self, answer: native.Frame, now: float) -> Steps:
        if (yield from self.paid(messages.Ping(), now)):
            yield Send(answer)

    def _refuse(self, frame: native.Frame, code: CloseCode) -> Steps:
        yield Send(frame)
        self._explained = True
        yield from self.close(code)

    # the first frame

    def _first(self, frame: Mapping[str, Any]) -> Steps:
        token = sdk.token(frame)
        if token is None:
            yield from self._refuse(sdk.NO_KEY, CloseCode.BAD_CREDENTIAL)
            return
        try:
            id, name = sdk.claimed(frame)
            title = sdk.text(frame, "room_title")
        except sdk.InvalidFrame as error:
            yield from self._refuse(
                sdk.error("Authentication failed", str(error)), CloseCode.BAD_CREDENTIAL
            )
            return
        if not is_sound(self.name):
            yield from self._refuse(sdk.error("This name is no text."), CloseCode.FORBIDDEN)
            return
        if any(map(self.too_long, (id, name, title, self.name))):
            message = f"Names may have {self.limits.name_bytes} bytes at most."
            yield from self._refuse(sdk.error(message), CloseCode.FORBIDDEN)
            return
        yield from self._muted(authentication.auth(self, messages.Auth(token=token)))
        if self.identity is None or self.closed:
            return
        self._explained, self._opened = False, True
        key = self.identity.user_key
        if key is None:
            self.connection.claimed = id, name
        opening = _OPENINGS[self.connection.dialect]
        yield from opening(self, frame, id if key is None else key)

    def _muted(self, steps: Steps) -> Steps:
        """Answers that only the native dialect knows are kept back; errors pass."""
        result: Any = None
        while True:
            try:
                effect = steps.send(result)
            except StopIteration:
                return
            if isinstance(effect, Send):
                if "error" not in effect.frame:
                    result = None
                    continue
                self._explained = True
            result = yield effect

    def _watch(self, frame: Mapping[str, Any], user_id: str) -> Steps:
        filters = frame.get("filters") or {}
        if not isinstance(filters, dict):
            yield from self._refuse(
                sdk.error("Invalid filter", "filters must be an object."), CloseCode.FORBIDDEN
            )
            return
        subscribe = messages.Subscribe(collection=self.name, filters=filters)
        refused = False
        steps = subscriptions.subscribe(self, subscribe)
        result: Any = None
        while True:
            try:
                effect = steps.send(result)
            except StopIteration:
                break
            if isinstance(effect, Send):
                refused = "error" in effect.frame
                effect = (
                    effect if refused else Send(sdk.connected_to_collection(self.name, filters))
                )
            result = yield effect
        if refused:
            self._explained = True
            yield from self.close(CloseCode.FORBIDDEN)

    def _hear(self, frame: Mapping[str, Any], user_id: str) -> Steps:
        assert self.identity is not None
        answer = sdk.connected_to_project(self.identity.project, user_id)
        yield from self._enter(Wish(PROJECT_ROOM, presence=False), lambda joined: answer)

    def _join(self, frame: Mapping[str, Any], user_id: str) -> Steps:
        wish = Wish(
            self.name,
            title=sdk.text(frame, "room_title"),
            create=frame.get("action") == "create",
        )
        yield from self._enter(
            wish,
            lambda joined: sdk.joined(self.name, joined.title, joined.participants, user_id),
        )

    def _enter(self, wish: Wish, answer: Callable[[Joined], native.Frame]) -> Steps:
        missing = sdk.error("Room not found", room_id=wish.room)
        grant: RoomGrant | None = yield Permit(wish.room)
        if grant is None:  # as one that is not there
            yield from self._refuse(missing, CloseCode.FORBIDDEN)
            return
        joined: Joined | bool | None = yield Enter(wish, grant)
        if joined is None:
            yield from self._refuse(missing, CloseCode.FORBIDDEN)
        elif not isinstance(joined, Joined):
            yield from self.close(CloseCode.UNAVAILABLE)
        else:
            yield Send(answer(joined))
            for event in () if joined.past is None else joined.past.events:
                yield Replay(event)
            yield Settle(wish.room, joined.past)

    # later frames

    def _later(self, frame: Mapping[str, Any], now: float) -> Steps:
        command = self._said(frame) if self.connection.rooms else None
        if not (yield from self.paid(command, now)):
            return
        if command is not None:  # nothing else is expected
            yield from rooms.broadcast(self, command)

    def _said(self, frame: Mapping[str, Any]) -> messages.Broadcast | None:
        if self.connection.dialect == sdk.BROADCAST:
            return messages.Broadcast(room=PROJECT_ROOM, message=frame.get("data", frame))
        if self.connection.dialect == sdk.ROOMS and frame.get("type") == "message":
            return messages.Broadcast(room=self.name, message=frame.get("content"))
        return None


_OPENINGS: dict[str, Callable[[SdkSession, Mapping[str, Any], str], Steps]] = {
    sdk.COLLECTIONS: SdkSession._watch,
    sdk.BROADCAST: SdkSession._hear,
    sdk.ROOMS: SdkSession._join,
}

"""The session of a published Cocobase SDK.

The path of the URL decides whether a socket is for a collection, for a room, or for broadcasts to
the project. The first frame authenticates the client. Frames of the SDK are converted to commands
of the native dialect, and their replies to frames that the SDK understands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..declarations.room import RoomGrant
from ..identity import PROJECT_ROOM
from ..metrics import metrics
from ..options import Limits
from ..rooms.local_room import JoinRequest, JoinResult
from ..transport.connection import Connection
from ..utils.project_code import ProjectCodeFailed
from ..wire import commands, frames, sdk_frames
from ..wire.codes import CloseCode, ErrorCode
from ..wire.json import is_valid_text
from . import auth_commands, room_commands, subscription_commands
from .effects import AuthorizeRoom, CompleteJoin, JoinRoom, Send, Steps
from .session import Session

# error message for a collection that does not exist or may not be watched
DENIED = "Collection not found or access denied"


class SdkSession(Session):
    """A session in one of the dialects of `wire.sdk_frames`."""

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
        # name of the collection or room in the URL path
        self.name = name
        # whether an error was sent that explains the close
        self._error_sent = False
        # whether the first frame was accepted, so that later ones are messages
        self._is_open = False
        # whether the project's code raised for it, so that the client may send it again
        self._has_failed = False

    def closing(self, code: CloseCode, retry_after_ms: int | None) -> frames.Frame | None:
        """Return the last frame, or None if an error has already explained the close.

        None also if the server will be stopped: SDKs connect again by themselves, and the
        project's code would handle an error.
        """
        if self._error_sent or code is CloseCode.DRAINING:
            return None
        return sdk_frames.closing(code)

    def error(
        self, code: ErrorCode, message: str, id: Any = None, retry_after_ms: int | None = None
    ) -> Send:
        """Return the effect that sends an error in this dialect."""
        metrics.refusals[code] += 1
        frames_by_code = {
            ErrorCode.AUTHENTICATION_FAILED: sdk_frames.BAD_KEY,
            ErrorCode.UNKNOWN_COLLECTION: sdk_frames.error(DENIED),
            ErrorCode.INVALID_FILTER: sdk_frames.error("Invalid filter", message),
        }
        return Send(frames_by_code.get(code) or sdk_frames.error(message))

    def receive(self, text: str | None, now: float) -> Steps:
        """Handle a frame. ``text`` is None for a binary one."""
        if self.closed:
            return
        limit = self.limits.message_bytes if self._is_open else self.limits.auth_bytes
        if text is None:
            yield from self._reject_malformed("Send JSON in text frames.", now)
        elif len(text) > limit or len(text.encode("utf-8", "surrogatepass")) > limit:
            yield from self._reject_malformed(f"A frame may have {limit} bytes at most.", now)
        elif text == "ping":
            yield from self._ping({"event": "pong"}, now)
        else:
            try:
                frame = sdk_frames.parse(text)
            except sdk_frames.InvalidFrame as error:
                yield from self._reject_malformed(str(error), now)
                return
            if frame.get("type") == "ping":
                yield from self._ping({"type": "pong"}, now)
            elif self._is_open:
                yield from self._handle_message(frame, now)
            else:
                yield from self._handle_first(frame)

    def _reject_malformed(self, detail: str, now: float) -> Steps:
        if not self._is_open:
            yield from self._refuse(
                sdk_frames.error("Authentication failed", detail), CloseCode.BAD_CREDENTIAL
            )
            return
        yield Send(sdk_frames.error("Invalid JSON"))
        yield from self.count_bad_request(now)

    def _ping(self, answer: frames.Frame, now: float) -> Steps:
        if (yield from self.check_rate(commands.Ping(), now)):
            yield Send(answer)

    def _refuse(self, frame: frames.Frame, code: CloseCode) -> Steps:
        yield Send(frame)
        self._error_sent = True
        yield from self.close(code)

    # the first frame

    def _handle_first(self, frame: Mapping[str, Any]) -> Steps:
        token = sdk_frames.credential(frame)
        if token is None and self.has_auth_failed:
            return  # sent right behind a first frame that could not be checked
        if token is None:
            yield from self._refuse(sdk_frames.NO_KEY, CloseCode.BAD_CREDENTIAL)
            return
        try:
            id, name = sdk_frames.claimed_user(frame)
            title = sdk_frames.text_value(frame, "room_title")
        except sdk_frames.InvalidFrame as error:
            yield from self._refuse(
                sdk_frames.error("Authentication failed", str(error)), CloseCode.BAD_CREDENTIAL
            )
            return
        if not is_valid_text(self.name):
            message = "The name in the URL is not valid."
            yield from self._refuse(sdk_frames.error(message), CloseCode.FORBIDDEN)
            return
        if any(map(self.is_name_too_long, (id, name, title, self.name))):
            message = f"Names may have {self.limits.name_bytes} bytes at most."
            yield from self._refuse(sdk_frames.error(message), CloseCode.FORBIDDEN)
            return
        auth = auth_commands.auth(self, commands.Auth(token=token))
        yield from self._replace_replies(auth, self._explain_close)
        self._error_sent = False
        if self.identity is None or self.closed:
            return
        self._is_open, self._has_failed = True, False
        user_key = self.identity.user_key
        if user_key is None:
            self.connection.claimed_user = id, name
        handler = _FIRST_FRAME_HANDLERS[self.connection.dialect]
        try:
            yield from handler(self, frame, id if user_key is None else user_key)
        except ProjectCodeFailed:
            # not closed: an SDK would connect again after a second, without end
            self._has_failed = True
            yield self.failed()

    def _replace_replies(
        self, steps: Steps, replace: Callable[[frames.Frame], frames.Frame | None]
    ) -> Steps:
        """Carry out a command, and send what ``replace`` returns for each reply, if not None."""
        result: Any = None
        failure: ProjectCodeFailed | None = None
        while True:
            try:
                effect = steps.send(result) if failure is None else steps.throw(failure)
            except StopIteration:
                return
            result = failure = None
            if isinstance(effect, Send):
                frame = replace(effect.frame)
                if frame is None:
                    continue
                effect = Send(frame)
            try:
                result = yield effect
            except ProjectCodeFailed as error:
                failure = error

    def _explain_close(self, reply: frames.Frame) -> frames.Frame | None:
        """Return a reply to ``auth`` only if it is an error, which then explains the close."""
        if "error" not in reply:
            return None
        self._error_sent = True
        return reply

    def _open_collection(self, frame: Mapping[str, Any], user_id: str) -> Steps:
        filters = frame.get("filters") or {}
        if not isinstance(filters, dict):
            yield from self._refuse(
                sdk_frames.error("Invalid filter", "filters must be an object."),
                CloseCode.FORBIDDEN,
            )
            return
        command = commands.Subscribe(collection=self.name, filters=filters)
        refused = False

        def replace(reply: frames.Frame) -> frames.Frame:
            nonlocal refused
            refused = "error" in reply
            return reply if refused else sdk_frames.connected_to_collection(self.name, filters)

        yield from self._replace_replies(subscription_commands.subscribe(self, command), replace)
        if refused:
            self._error_sent = True
            yield from self.close(CloseCode.FORBIDDEN)

    def _open_project(self, frame: Mapping[str, Any], user_id: str) -> Steps:
        assert self.identity is not None
        answer = sdk_frames.connected_to_project(self.identity.project, user_id)
        yield from self._join(JoinRequest(PROJECT_ROOM, presence=False), lambda result: answer)

    def _open_room(self, frame: Mapping[str, Any], user_id: str) -> Steps:
        request = JoinRequest(
            self.name,
            title=sdk_frames.text_value(frame, "room_title"),
            create=frame.get("action") == "create",
        )

        def answer(result: JoinResult) -> frames.Frame:
            return sdk_frames.joined(self.name, result.title, result.participants, user_id)

        yield from self._join(request, answer)

    def _join(self, request: JoinRequest, answer: Callable[[JoinResult], frames.Frame]) -> Steps:
        missing = sdk_frames.error("Room not found", room_id=request.room)
        grant: RoomGrant | None = yield AuthorizeRoom(request.room)
        if grant is None:  # answered like a room that does not exist
            yield from self._refuse(missing, CloseCode.FORBIDDEN)
            return
        result: JoinResult | bool | None = yield JoinRoom(request, grant)
        if result is None:
            yield from self._refuse(missing, CloseCode.FORBIDDEN)
        elif not isinstance(result, JoinResult):
            yield from self.close(CloseCode.UNAVAILABLE)
        else:
            yield Send(answer(result))
            yield CompleteJoin(request.room, (), result.history)

    # later frames

    def _handle_message(self, frame: Mapping[str, Any], now: float) -> Steps:
        command = self._parse_broadcast(frame) if self.rooms else None
        if not (yield from self.check_rate(command, now)):
            return
        if command is not None:  # other frames are ignored
            yield from room_commands.broadcast(self, command)
        elif self._has_failed and sdk_frames.credential(frame) is not None:
            yield from self._handle_first(frame)

    def _parse_broadcast(self, frame: Mapping[str, Any]) -> commands.Broadcast | None:
        if self.connection.dialect == sdk_frames.BROADCAST:
            return commands.Broadcast(room=PROJECT_ROOM, message=frame.get("data", frame))
        if self.connection.dialect == sdk_frames.ROOMS and frame.get("type") == "message":
            return commands.Broadcast(room=self.name, message=frame.get("content"))
        return None


_FIRST_FRAME_HANDLERS: dict[str, Callable[[SdkSession, Mapping[str, Any], str], Steps]] = {
    sdk_frames.COLLECTIONS: SdkSession._open_collection,
    sdk_frames.BROADCAST: SdkSession._open_project,
    sdk_frames.ROOMS: SdkSession._open_room,
}

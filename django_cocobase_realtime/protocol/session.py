"""The session of a connection, which decides what to do with the client's frames.

It uses no socket, no database and no clock. Its methods are generators of effects: the consumer
carries each effect out, and sends its result into the generator. A conversation can therefore be
read from top to bottom, and tested without a socket::

    steps = session.receive('{"type": "ping"}', now)
    effect = next(steps)          # Send(frame={"type": "pong"})
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..utils.project_code import ProjectCodeFailed
from ..wire import commands, frames
from ..wire.codes import CloseCode, ErrorCode
from ..wire.commands import InvalidCommand
from ..wire.request_ids import find_id_in_oversized
from . import auth_commands, room_commands, subscription_commands
from .effects import Send, Steps
from .state import SessionState


class Session(SessionState):
    """A session in the native dialect."""

    def receive(self, text: str | None, now: float) -> Steps:
        """Handle a frame. ``text`` is None for a binary one."""
        if self.closed:
            return
        if text is None:
            yield from self._reject(
                InvalidCommand(ErrorCode.BAD_REQUEST, "Send JSON in text frames."), now
            )
            return
        limit = self.limits.message_bytes if self.identity else self.limits.auth_bytes
        if len(text) > limit or len(text.encode("utf-8", "surrogatepass")) > limit:
            id = find_id_in_oversized(text)
            if (yield from self.check_rate(None, now, id)):
                message = f"A frame may have {limit} bytes at most."
                yield self.error(ErrorCode.TOO_LARGE, message, id)
            return
        try:
            command = commands.decode(text)
        except InvalidCommand as error:
            yield from self._reject(error, now)
            return
        if (yield from self.check_rate(command, now)):
            yield from self._handle(command)

    def auth_timeout(self) -> Steps:
        """Close the connection if the client has not authenticated in time."""
        if self.identity is None:
            yield from self.close(CloseCode.AUTH_TIMEOUT)

    def expired(self) -> Steps:
        """Close the connection because its credential has expired."""
        yield from self.close(CloseCode.TOKEN_EXPIRED)

    def idle(self) -> Steps:
        """Close the connection because the client has sent nothing for too long."""
        yield from self.close(CloseCode.HEARTBEAT_MISSED)

    def _handle(self, command: commands.Command) -> Steps:
        if isinstance(command, commands.Ping):
            yield Send(frames.reply("pong", command.id))
        elif isinstance(command, commands.Auth):
            yield from auth_commands.auth(self, command)
        elif self.identity is None:
            yield self.error(
                ErrorCode.NOT_AUTHENTICATED, "Send auth before anything else.", command.id
            )
            if not self.has_auth_failed:
                yield from self.close(CloseCode.AUTH_REQUIRED)
        elif isinstance(command, commands.Ack):
            self.connection.writer.ack(command.cursor, self.limits.unacked_events)
        else:
            try:
                yield from _HANDLERS[type(command)](self, command)
            except ProjectCodeFailed:
                yield self.failed(command.id)

    def _reject(self, error: InvalidCommand, now: float) -> Steps:
        yield self.error(error.code, str(error), error.id)
        yield from self.count_bad_request(now)


# handlers by type of the command
_HANDLERS: dict[type, Callable[[SessionState, Any], Steps]] = {
    commands.Subscribe: subscription_commands.subscribe,
    commands.Unsubscribe: subscription_commands.unsubscribe,
    commands.Join: room_commands.join,
    commands.Leave: room_commands.leave,
    commands.State: room_commands.set_state,
    commands.Broadcast: room_commands.broadcast,
}

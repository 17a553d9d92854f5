"""The presence state of this client in a room, without I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .errors import RealtimeError
from .interfaces import Frame
from .rates import Request
from .requests import CONNECTION_LOST, RequestChannel
from .streams import Ready

State = Mapping[str, Any]


class OwnState:
    """Sends the newest state; of several that wait, only the last one is sent."""

    def __init__(
        self,
        channel: RequestChannel,
        room: str,
        state: State | None,
        on_accepted: Callable[[State], None],
    ) -> None:
        self._channel = channel
        # name of the room
        self._room = room
        # called with a state that the server has accepted
        self._on_accepted = on_accepted
        # whether the room is joined on the current connection
        self._is_open = False
        # the last state that the server has accepted, or that the room was entered with
        self._accepted: State | None = None if state is None else self._prepare(state)
        # the newest state
        self._newest = self._accepted
        # the request that is sent or waits for its turn
        self._request: Request | None = None
        # states that were set and not answered, oldest first, and what their callers wait for
        self._waiting: list[tuple[State, Ready]] = []

    @property
    def newest(self) -> State | None:
        """The newest state, as a request to join contains it."""
        return self._newest

    @property
    def is_unconfirmed(self) -> bool:
        """Whether the server has not accepted the newest state yet."""
        return self._newest is not self._accepted

    async def set(self, state: State) -> None:
        """Replace the state, and wait until the server has accepted it or a newer one.

        While the room is not joined, return at once; the state is sent with the next join.
        """
        newest = self._newest = self._prepare(state)
        if not self._is_open:
            return
        settled = Ready()
        self._waiting.append((newest, settled))
        self._send()
        await settled.wait()

    def handle_joined(self, state: State | None) -> None:
        """Keep the state that the request to join contained, and send a newer one if there is."""
        if state is not None:
            self._accepted = state
        self._is_open = True
        if self.is_unconfirmed:
            self._send()

    def close(self) -> None:
        """Handle the loss of the connection; the newest state is sent with the next join."""
        self._withdraw()
        self._settle_all(None)

    def handle_join_refused(self, state: State | None) -> bool:
        """Give up the state of a refused request to join; return whether another may succeed."""
        if state is None or (state is self._accepted and not self.is_unconfirmed):
            return False
        if state is self._newest:
            self._newest = self._accepted
        elif state is self._accepted:
            self._accepted = None
        return True

    def reset(self, error: RealtimeError) -> None:
        """Forget the state, for another user; `set` fails."""
        self.fail(error)
        self._accepted = self._newest = None

    def fail(self, error: RealtimeError) -> None:
        """Let `set` fail, because the room has ended."""
        self._withdraw()
        self._settle_all(error)

    def _withdraw(self) -> None:
        """Send nothing before the next join, not even what waits for its turn."""
        self._is_open = False
        request, self._request = self._request, None
        if request is not None:
            request.cancel()

    def _send(self) -> None:
        frame = {"type": "state", "room": self._room, "state": self._newest}
        if self._request is None:
            self._request = self._channel.send_request(frame, self._handle_reply)
        else:
            # sent instead of the older one if that is not sent yet, or refused by rate
            self._request.frame = frame

    def _handle_reply(self, reply: Frame) -> None:
        request, self._request = self._request, None
        if reply is CONNECTION_LOST or request is None or not self._is_open:
            return
        sent: State = (request.sent_frame or request.frame)["state"]
        error: RealtimeError | None = None
        if reply["type"] != "error":
            self._accepted = sent
            self._on_accepted(sent)
        else:
            error = RealtimeError.from_frame(reply)
            error.room = self._room
            if sent is self._newest:
                self._newest = self._accepted
        # it was sent in place of those before it; newer ones have an answer of their own
        for index, (state, _) in enumerate(self._waiting):
            if state is sent:
                answered, self._waiting = self._waiting[: index + 1], self._waiting[index + 1 :]
                _settle(answered, error)
                break
        if self.is_unconfirmed:
            self._send()

    def _settle_all(self, error: RealtimeError | None) -> None:
        waiting, self._waiting = self._waiting, []
        _settle(waiting, error)

    def _prepare(self, state: State) -> State:
        frame = {"type": "state", "room": self._room, "state": dict(state)}
        prepared: State = self._channel.prepare(frame)["state"]
        self._channel.check_state(prepared)
        return prepared


def _settle(waiting: list[tuple[State, Ready]], error: RealtimeError | None) -> None:
    for _, settled in waiting:
        if error is None:
            settled.done()
        else:
            settled.fail(error)

"""What happens in rooms as text, encoded once for each dialect in which somebody hears it."""

from __future__ import annotations

from ..events import Broadcast, Presence, Push
from ..rooms.history import cursor_of
from ..wire import native, sdk
from .connection import NATIVE


class RoomFrames:
    """Encodes one event of a room. ``text`` is None where a dialect has no word for it."""

    __slots__ = ("_event", "_replayed", "_texts", "_title")

    def __init__(
        self, event: Broadcast | Presence | Push, *, title: str = "", replayed: bool = False
    ) -> None:
        self._event = event
        self._title = title
        self._replayed = replayed
        self._texts: dict[str, str | None] = {}

    def text(self, dialect: str) -> str | None:
        """The frame for connections of a dialect."""
        if dialect not in self._texts:
            frame = self._native() if dialect == NATIVE else self._sdk(dialect)
            self._texts[dialect] = None if frame is None else native.encode(frame)
        return self._texts[dialect]

    def _sdk(self, dialect: str) -> native.Frame | None:
        match self._event:
            case Broadcast() as event:
                return sdk.broadcast(event, dialect, self._title)
            case Presence() as event:
                return sdk.presence(event, dialect, self._title)
        return None

    def _native(self) -> native.Frame:
        match self._event:
            case Broadcast() as event:
                sender = event.sender
                return native.broadcast(
                    room=event.room,
                    message=event.message,
                    sender=None
                    if sender is None
                    else {"id": sender.id, "name": sender.name, "verified": sender.verified},
                    at=event.at,
                    cursor=cursor_of(event),
                    replayed=self._replayed,
                )
            case Presence() as event:
                return native.presence(
                    room=event.room,
                    event=event.event,
                    member=native.member(event.member),
                    participants=event.participants,
                )
            case Push() as event:
                return native.direct(message=event.message, at=event.at)

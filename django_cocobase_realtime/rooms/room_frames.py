"""Encoding of a room's events as frames, once for each dialect."""

from __future__ import annotations

from ..events import Broadcast, DirectMessage, PresenceChange
from ..transport.connection import NATIVE
from ..wire import frames, sdk_frames
from .history import cursor_of


class RoomFrames:
    """The frames of one broadcast, presence change or direct message, by dialect."""

    __slots__ = ("_event", "_replayed", "_texts", "_title")

    def __init__(
        self,
        event: Broadcast | PresenceChange | DirectMessage,
        *,
        title: str = "",
        replayed: bool = False,
    ) -> None:
        self._event = event
        # title of the room
        self._title = title
        # whether the event is flagged as sent before the client joined
        self._replayed = replayed
        # encoded frames by dialect
        self._texts: dict[str, str | None] = {}

    def text(self, dialect: str) -> str | None:
        """Return the frame in a dialect, or None if the dialect has none for such an event."""
        if dialect not in self._texts:
            frame = self._native() if dialect == NATIVE else self._sdk(dialect)
            self._texts[dialect] = None if frame is None else frames.encode(frame)
        return self._texts[dialect]

    def _sdk(self, dialect: str) -> frames.Frame | None:
        match self._event:
            case Broadcast() as event:
                return sdk_frames.broadcast(event, dialect, self._title)
            case PresenceChange() as event:
                return sdk_frames.presence(event, dialect, self._title)
        return None

    def _native(self) -> frames.Frame:
        match self._event:
            case Broadcast() as event:
                sender = event.sender
                return frames.broadcast(
                    room=event.room,
                    message=event.message,
                    sender=None
                    if sender is None
                    else {"id": sender.id, "name": sender.name, "verified": sender.verified},
                    at=event.at,
                    cursor=cursor_of(event),
                    replayed=self._replayed,
                )
            case PresenceChange() as event:
                return frames.presence(
                    room=event.room,
                    event=event.event,
                    member=frames.member(event.member),
                    participants=event.participants,
                )
            case DirectMessage() as event:
                return frames.direct(message=event.message, at=event.at)

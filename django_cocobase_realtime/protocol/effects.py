"""What a session wants done. The consumer does it and answers with the result."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..declarations.room import Room, RoomGrant
from ..delivery.table import CatchUpPlan, Subscription
from ..events import Broadcast
from ..rooms.history import HistoryPage
from ..rooms.local_room import JoinRequest
from ..wire.codes import CloseCode
from ..wire.frames import Frame


@dataclass(frozen=True, slots=True)
class Send:
    """Send a frame. Result: None."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Close:
    """Say ``closing`` and close; nothing more is read. Result: None."""

    code: CloseCode
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Ask the authenticators. Result: an ``Identity`` or None."""

    token: str | None


@dataclass(frozen=True, slots=True)
class AdmitConnection:
    """Count the new identity's connection. Result: False where it has too many."""


@dataclass(frozen=True, slots=True)
class EnableBatching:
    """From now on, events that wait together may leave as one frame. Result: None."""


@dataclass(frozen=True, slots=True)
class ScheduleExpiry:
    """Watch over the identity's ``expires_at``, anew after a refresh. Result: None."""


@dataclass(frozen=True, slots=True)
class Reauthorize:
    """Ask anew what the connection may watch: its identity was refreshed. Result: None."""


@dataclass(frozen=True, slots=True)
class AuthorizeCollection:
    """Ask the collection's permission. Result: a ``Grant``, None where it is refused or unknown."""

    collection: str
    filters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OpenTopic:
    """Follow a collection. Result: its ``Extent`` so far, None where it has no log.

    ``Attach`` follows in the same breath.
    """

    collection: str


@dataclass(frozen=True, slots=True)
class AttachSubscription:
    """Start a prepared subscription, in place of one of the same name. Result: None.

    Live at once, or after what it is to ``begin`` with.
    """

    subscription: Subscription
    plan: CatchUpPlan | None = None


@dataclass(frozen=True, slots=True)
class DetachSubscription:
    """End a subscription. Result: None."""

    subscription: Subscription


@dataclass(frozen=True, slots=True)
class AuthorizeRoom:
    """Ask a room's permission. Result: a ``RoomGrant``, None where it may not be joined."""

    room: str


@dataclass(frozen=True, slots=True)
class JoinRoom:
    """Enter a room. Result: ``Joined``, None where it was not to be opened, False where it is not
    known for now who is in it.
    """

    request: JoinRequest
    grant: RoomGrant


@dataclass(frozen=True, slots=True)
class ReplayBroadcast:
    """Send what was said before, at the client's pace. Result: None."""

    event: Broadcast


@dataclass(frozen=True, slots=True)
class FinishReplay:
    """The past of a room was told; go on with what was said since. Result: None."""

    room: str
    history: HistoryPage | None


@dataclass(frozen=True, slots=True)
class LeaveRoom:
    """Leave a room. Result: None."""

    room: str


@dataclass(frozen=True, slots=True)
class SetRoomState:
    """Set one's state in a room. Result: False where that cannot be done for now."""

    room: str
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PublishToRoom:
    """Send a broadcast to its room. Result: an ``Outcome``."""

    event: Broadcast
    room: Room
    ephemeral: bool = False
    idempotency_key: str | None = None


Effect = (
    Send
    | Close
    | Authenticate
    | AdmitConnection
    | EnableBatching
    | ScheduleExpiry
    | Reauthorize
    | AuthorizeCollection
    | OpenTopic
    | AttachSubscription
    | DetachSubscription
    | AuthorizeRoom
    | JoinRoom
    | ReplayBroadcast
    | FinishReplay
    | LeaveRoom
    | SetRoomState
    | PublishToRoom
)
Steps: TypeAlias = Generator[Effect, Any, None]
"""Effects in order; each is answered with its result before the next one is made."""

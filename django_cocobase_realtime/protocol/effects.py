"""What a session wants done. The consumer does it, and sends the result back.

Sessions are generators: each yields effects one by one, and continues with the effect's result.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..declarations.room import Room, RoomGrant
from ..delivery.subscription import CatchUpPlan, Subscription
from ..events import Broadcast
from ..rooms.history import HistoryPage
from ..rooms.local_room import JoinRequest, RoomMembership
from ..wire.codes import CloseCode
from ..wire.frames import Frame

# the connection


@dataclass(frozen=True, slots=True)
class Send:
    """Send a frame. Result: None."""

    frame: Frame


@dataclass(frozen=True, slots=True)
class Close:
    """Send a ``closing`` frame and close; nothing more is read. Result: None."""

    code: CloseCode
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Ask the authenticators. Result: an ``Identity``, or None."""

    token: str | None


@dataclass(frozen=True, slots=True)
class AdmitConnection:
    """Count the connection for its new identity. Result: an `Admission`, None if refused."""


@dataclass(frozen=True, slots=True)
class Admission:
    """What an admitted connection holds. Both mappings are kept up to date by the hub."""

    # by the name that the client gave
    subscriptions: Mapping[str, Subscription]
    # by room name
    rooms: Mapping[str, RoomMembership]


@dataclass(frozen=True, slots=True)
class EnableBatching:
    """Allow several events in one frame from now on. Result: None."""


@dataclass(frozen=True, slots=True)
class ScheduleExpiry:
    """Close the connection when the identity expires; replaces an earlier time. Result: None."""


@dataclass(frozen=True, slots=True)
class Reauthorize:
    """Determine again what the connection may see: its claims changed. Result: None."""


# collections


@dataclass(frozen=True, slots=True)
class AuthorizeCollection:
    """Ask a collection's permission. Result: a ``Grant``; None if refused, or unknown."""

    collection: str
    filters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class OpenTopic:
    """Follow a collection. Result: its ``StreamRange``, None if it has no log.

    `AttachSubscription` must follow without another effect that waits.
    """

    # the name of its stream
    collection: str


@dataclass(frozen=True, slots=True)
class AttachSubscription:
    """Start a subscription to an opened topic; it replaces one of the same name. Result: None.

    It is live at once, or after ``plan`` was carried out.
    """

    subscription: Subscription
    plan: CatchUpPlan | None = None


@dataclass(frozen=True, slots=True)
class DetachSubscription:
    """End a subscription. Result: None."""

    subscription: Subscription


# rooms


@dataclass(frozen=True, slots=True)
class AuthorizeRoom:
    """Ask a room's permission. Result: a ``RoomGrant``; None if the room may not be joined."""

    room: str


@dataclass(frozen=True, slots=True)
class JoinRoom:
    """Join a room.

    Result: a ``JoinResult``; None if the room has no members and was not to be opened; False if
    the presence backend does not answer.
    """

    request: JoinRequest
    grant: RoomGrant


@dataclass(frozen=True, slots=True)
class ReplayBroadcast:
    """Send an older broadcast, at the client's pace. Result: None."""

    event: Broadcast


@dataclass(frozen=True, slots=True)
class FinishReplay:
    """Deliver the broadcasts that arrived during the replay, then deliver live. Result: None."""

    room: str
    history: HistoryPage | None


@dataclass(frozen=True, slots=True)
class LeaveRoom:
    """Leave a room. Result: None."""

    room: str


@dataclass(frozen=True, slots=True)
class SetRoomState:
    """Set the member's state in a room. Result: False if the presence backend does not answer."""

    room: str
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PublishToRoom:
    """Send a broadcast to its room. Result: a ``PublishResult``."""

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
"""Effects in order; each is answered with its result before the next one is yielded."""

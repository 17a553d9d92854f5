"""Effects: the actions that a session requests from the consumer.

Methods of a session are generators. They yield effects one by one; the consumer carries each out
and sends its result into the generator, which then continues. If the project's code raised in
it, the consumer throws `ProjectCodeFailed` into the generator, which then refuses the request.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..declarations.room import Room, RoomGrant
from ..delivery.filter_costs import NewFilter
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
    """Send a ``closing`` frame, and close the connection. Result: None."""

    code: CloseCode
    retry_after_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Find the identity that a token proves. Result: an ``Identity``, or None.

    Raises `ProjectCodeFailed` if no authenticator accepts the token and one of them raised.
    """

    # None to authenticate by the session of a logged-in visitor
    token: str | None


@dataclass(frozen=True, slots=True)
class AdmitConnection:
    """Add the authenticated connection to the hub.

    Result: an `Admission`, or `TooManyConnections`.
    """


@dataclass(frozen=True, slots=True)
class Admission:
    """Mappings of a connection's subscriptions and rooms, which the hub keeps up to date."""

    # by the name that the client gave
    subscriptions: Mapping[str, Subscription]
    # by name of the room
    rooms: Mapping[str, RoomMembership]


@dataclass(frozen=True, slots=True)
class TooManyConnections:
    """The user of a connection has too many connections to this process."""

    # when to try again
    retry_after_ms: int


@dataclass(frozen=True, slots=True)
class EnableBatching:
    """Send several events in one frame from now on. Result: None."""


@dataclass(frozen=True, slots=True)
class ScheduleExpiry:
    """Close the connection when its credential expires. Result: None.

    It replaces the time that was set for an earlier credential.
    """


@dataclass(frozen=True, slots=True)
class Reauthorize:
    """Evaluate the permissions again, because the credential has changed. Result: None."""


# collections


@dataclass(frozen=True, slots=True)
class AuthorizeCollection:
    """Evaluate the permission of a collection. May raise `ProjectCodeFailed`.

    Result: a ``Grant``, or None if the permission refuses or there is no such collection.
    """

    collection: str
    filters: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ReserveFilterCost:
    """Count the cost of a filter. Result: whether it is within the limit ``filter_cost``."""

    filter: NewFilter


@dataclass(frozen=True, slots=True)
class OpenTopic:
    """Follow a collection. Result: the ``StreamRange`` of its log, or None if it has none.

    Until `AttachSubscription`, which must follow, no other effect may wait.
    """

    # the name of its stream
    collection: str


@dataclass(frozen=True, slots=True)
class AttachSubscription:
    """Start a subscription to an opened topic; replace one with the same name. Result: None.

    It is live immediately, or after ``plan`` has been carried out.
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
    """Evaluate the permission of a room. May raise `ProjectCodeFailed`.

    Result: a ``RoomGrant``, or None if the connection may not join.
    """

    room: str


@dataclass(frozen=True, slots=True)
class JoinRoom:
    """Join a room. May raise `ProjectCodeFailed`; the connection is not added then.

    Result: a ``JoinResult``; None if the room has no members and the request does not open it;
    False if the presence backend does not answer.
    """

    request: JoinRequest
    grant: RoomGrant


@dataclass(frozen=True, slots=True)
class CompleteJoin:
    """Send the rest of what a client gets when it joins, and then deliver live. Result: None."""

    room: str
    # ids of the members that were not sent yet
    unlisted: Sequence[str]
    # the broadcasts to replay; None if the room keeps none
    history: HistoryPage | None


@dataclass(frozen=True, slots=True)
class LeaveRoom:
    """Leave a room. Result: None."""

    room: str


@dataclass(frozen=True, slots=True)
class WaitForRooms:
    """Wait until the permissions of the rooms are not being evaluated again. Result: None."""


@dataclass(frozen=True, slots=True)
class SetRoomState:
    """Set the member's state in a room.

    Result: None, or False if the presence backend does not answer.
    """

    room: str
    state: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PublishToRoom:
    """Publish a broadcast to its room. Result: a ``PublishResult``."""

    event: Broadcast
    # declaration of the room
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
    | ReserveFilterCost
    | OpenTopic
    | AttachSubscription
    | DetachSubscription
    | AuthorizeRoom
    | JoinRoom
    | CompleteJoin
    | LeaveRoom
    | WaitForRooms
    | SetRoomState
    | PublishToRoom
)
# a generator of effects, into which the result of each is sent before it yields the next one
Steps: TypeAlias = Generator[Effect, Any, None]

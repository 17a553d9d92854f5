"""Events that the parts of the app, in all processes, exchange: changes, broadcasts, presence.

Events cross processes as JSON, since channel layers encode messages with msgpack, which has no
decimals, UUIDs or datetimes. Therefore all values in an event are JSON values already.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from .identity import Identity

PROJECT_ROOM = "*"
"""The name of the room that stands for a whole project."""
Image = dict[str, Any]
"""A row as JSON values by field name, without the fields that look secret."""


class Change(msgspec.Struct, frozen=True, tag="change", omit_defaults=True):
    """A row of a watched collection was created, updated or deleted."""

    id: str
    collection: str
    op: Literal["created", "updated", "deleted"]
    document_id: str
    # the same for all changes of one database transaction
    transaction: str
    # time of the change, ISO 8601
    at: str
    # the row before the change; None for a creation, and for an update if old values are unknown
    before: Image | None = None
    # the row after the change; None for a deletion
    after: Image | None = None
    # names of the fields whose values differ; None if that is unknown
    changed: tuple[str, ...] | None = None
    # ``data`` as the collection's serializer made it; None without a serializer
    document: dict[str, Any] | None = None
    # place in the collection's stream; None for a change that is not logged
    epoch: str | None = None
    seq: int | None = None


class LogAppended(msgspec.Struct, frozen=True, tag="bell"):
    """The log of a collection has new events, which processes read there."""

    collection: str


class Sender(msgspec.Struct, frozen=True):
    """The sender of a broadcast."""

    id: str | None
    name: str
    # whether the sender is a user; False for a name that a client claims
    verified: bool = True


class Broadcast(msgspec.Struct, frozen=True, tag="broadcast", omit_defaults=True):
    """A message to all members of a room."""

    room: str
    project: str
    message: Any
    at: str
    # None for the server
    sender: Sender | None = None
    # id of the connection that sent it
    connection: str | None = None
    # whether the sending connection receives it, too
    echo: bool = True
    # place in the history of the room; None if the room does not keep it
    epoch: str | None = None
    seq: int | None = None

    @property
    def is_for_all(self) -> bool:
        """Whether the server sent it to the whole project, to members of rooms and others."""
        return self.room == PROJECT_ROOM and self.connection is None


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """A member of a room: a user, or a connection without a user."""

    # unique in the room
    id: str
    name: str
    state: dict[str, Any] = {}
    # the user id that a client without a user claims; not to be trusted
    claimed: str | None = None


class PresenceChange(msgspec.Struct, frozen=True, tag="presence", omit_defaults=True):
    """A member joined a room, left it, or changed its name or state."""

    project: str
    room: str
    event: Literal["joined", "left", "updated"]
    member: Member
    participants: int
    # number of the change among all changes of the room
    version: int


class DirectMessage(msgspec.Struct, frozen=True, tag="push"):
    """A message from the server to all connections of a user."""

    project: str
    message: Any
    at: str
    user: str


class DisconnectRequested(msgspec.Struct, frozen=True, tag="kick", omit_defaults=True):
    """Close the connections of a user or of a credential, in every process."""

    # close code
    code: int
    user: str | None = None
    credential: str | None = None
    # only connections of this project, if not None
    project: str | None = None

    def concerns(self, identity: Identity) -> bool:
        """Return whether connections of this identity must be closed."""
        by_user = self.user is not None and identity.user_key == self.user
        by_credential = self.credential is not None and identity.credential == self.credential
        return (by_user or by_credential) and self.project in (None, identity.project)


class PermissionsChanged(msgspec.Struct, frozen=True, tag="rights"):
    """What users may see may have changed."""

    # user ids as sent to clients; None for all users
    users: tuple[str, ...] | None = None

    def concerns(self, identity: Identity | None) -> bool:
        """Return whether the permissions of an identity must be evaluated again."""
        if identity is None:
            return False
        return self.users is None or identity.user_key in self.users


Event = (
    Change
    | LogAppended
    | Broadcast
    | PresenceChange
    | DirectMessage
    | DisconnectRequested
    | PermissionsChanged
)

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """Return an event as JSON."""
    return _encoder.encode(event)


def decode(payload: bytes) -> Event:
    """Return the event that was encoded as JSON. Raises ``msgspec.DecodeError``."""
    return _decoder.decode(payload)


def now() -> str:
    """Return the current time as ISO 8601, in UTC with the offset ``+00:00``."""
    return datetime.now(UTC).isoformat()

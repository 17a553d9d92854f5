"""What happened, as frozen values: the one vocabulary between capture, log, broker and hub.

Events cross processes as JSON bytes (channel layers speak msgpack, which has no Decimal, UUID
or datetime), so everything in them is JSON-ready already.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from .identity import Identity

PROJECT_ROOM = "*"
"""The room that stands for the whole project."""
Image = dict[str, Any]
"""A row in wire form: field name to JSON-ready value, secret-looking fields left out."""


class Change(msgspec.Struct, frozen=True, tag="change", omit_defaults=True):
    """One row of a watched collection was created, updated or deleted.

    ``before`` is None for a creation and, where before-images are switched off, for an update;
    ``after`` is None for a deletion. ``changed`` names the fields whose value differs, None
    where that is not known. ``document`` is the ``data`` made by a collection's serializer,
    None where documents are projections of the image. ``transaction`` is the same for all
    changes of one database transaction. ``epoch`` and ``seq`` are its place in the collection's
    stream, None for a change that no log keeps.
    """

    id: str
    collection: str
    op: Literal["created", "updated", "deleted"]
    document_id: str
    transaction: str
    at: str
    before: Image | None = None
    after: Image | None = None
    changed: tuple[str, ...] | None = None
    document: dict[str, Any] | None = None
    epoch: str | None = None
    seq: int | None = None


class LogAppended(msgspec.Struct, frozen=True, tag="bell"):
    """A collection's log has something new; whoever needs it reads it there."""

    collection: str


class Sender(msgspec.Struct, frozen=True):
    """Who broadcast: ``verified`` is False for a name that a client merely claims."""

    id: str | None
    name: str
    verified: bool = True


class Broadcast(msgspec.Struct, frozen=True, tag="broadcast", omit_defaults=True):
    """A message to everyone in a room of a project.

    ``connection`` is the sending connection's id; ``echo`` False leaves that one out. ``epoch``
    and ``seq`` are its place among what the room keeps, None where it keeps nothing.
    """

    room: str
    project: str
    message: Any
    at: str
    sender: Sender | None = None
    connection: str | None = None
    echo: bool = True
    epoch: str | None = None
    seq: int | None = None

    @property
    def is_for_all(self) -> bool:
        """Whether it is the server's word to the whole project, joined or not."""
        return self.room == PROJECT_ROOM and self.connection is None


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """Somebody in a room: a user, or a connection without one.

    ``id`` is unique in the room. ``claimed`` is the user id that a client without a user gave
    itself, never to be taken for a user's.
    """

    id: str
    name: str
    state: dict[str, Any] = {}
    claimed: str | None = None


class PresenceChange(msgspec.Struct, frozen=True, tag="presence", omit_defaults=True):
    """A member came, went, or changed. ``version`` counts a room's changes one by one."""

    project: str
    room: str
    event: Literal["joined", "left", "updated"]
    member: Member
    participants: int
    version: int


class DirectMessage(msgspec.Struct, frozen=True, tag="push"):
    """From the server to all connections of a user."""

    project: str
    message: Any
    at: str
    user: str


class DisconnectRequested(msgspec.Struct, frozen=True, tag="kick", omit_defaults=True):
    """Close the connections of a user or of a credential, in every process."""

    code: int
    user: str | None = None
    credential: str | None = None
    project: str | None = None

    def concerns(self, identity: Identity) -> bool:
        """Return whether connections of this identity must be closed."""
        by_user = self.user is not None and identity.user_key == self.user
        by_credential = self.credential is not None and identity.credential == self.credential
        return (by_user or by_credential) and self.project in (None, identity.project)


class PermissionsChanged(msgspec.Struct, frozen=True, tag="rights"):
    """What these users (ids as on the wire; None: everyone) may see may have changed."""

    users: tuple[str, ...] | None = None

    def concerns(self, identity: Identity | None) -> bool:
        """Whether a connection of this identity must be looked at anew."""
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
    """Event to JSON bytes."""
    return _encoder.encode(event)


def decode(payload: bytes) -> Event:
    """JSON bytes to event. Raises ``msgspec.DecodeError`` for anything else."""
    return _decoder.decode(payload)


def now() -> str:
    """The present moment as ISO 8601 in UTC with the offset written ``+00:00``."""
    return datetime.now(UTC).isoformat()

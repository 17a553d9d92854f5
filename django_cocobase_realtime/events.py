"""Events, which processes exchange through the channel layer: changes, broadcasts, presence.

They are sent as JSON, so all values in an event are JSON values. Channel layers encode messages
with msgpack, which has no decimals, UUIDs or datetimes either.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from .identity import PROJECT_ROOM, Identity
from .utils.json_text import encode_json

# a row as JSON values by field name, without the fields that look secret
Image = dict[str, Any]


# `Change.document` if the serializer raised an exception; clients are sent `"error": true` instead
FAILED_DOCUMENT: Mapping[str, Any] = MappingProxyType({"$serializer_failed": True})


class Change(msgspec.Struct, frozen=True, tag="change", omit_defaults=True):
    """A row of a watched model was created, updated or deleted."""

    # unique: the transaction and a number in it
    id: str
    # name of the collection
    collection: str
    op: Literal["created", "updated", "deleted"]
    # primary key of the row, as text
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
    # the document's data, if the collection has a serializer; `FAILED_DOCUMENT` if it raised
    document: dict[str, Any] | None = None
    # epoch of the collection's stream, and the place of the change in it; None for a change that
    # is not logged, or not numbered yet
    epoch: str | None = None
    seq: int | None = None
    # number in the hidden stream of the tables that permissions depend on: all changes of these
    # that were committed before this one have this number or a lower one. None if the collection
    # has no dependencies, or had none when the change was numbered
    related_seq: int | None = None
    # values of related fields by name, made when the change was numbered; None if the collection
    # has none, or had none then
    related: dict[str, Any] | None = None

    @property
    def has_failed_document(self) -> bool:
        """Whether the serializer raised, so that the data of the document is not known."""
        return self.document == FAILED_DOCUMENT


class LogAppended(msgspec.Struct, frozen=True, tag="bell", omit_defaults=True):
    """The log of a collection has new events, which processes must read there."""

    # name of the collection
    collection: str
    # whether they have numbers; otherwise, one of the processes must number them
    numbered: bool = False


class Sender(msgspec.Struct, frozen=True):
    """The sender of a broadcast."""

    # user id, or None
    id: str | None
    # displayed name
    name: str
    # False if id and name are only what the client claims
    verified: bool = True


class Broadcast(msgspec.Struct, frozen=True, tag="broadcast", omit_defaults=True):
    """A message to all members of a room."""

    # name of the room
    room: str
    project: str
    # any JSON value
    message: Any
    # time, ISO 8601
    at: str
    # None if Django sent it
    sender: Sender | None = None
    # id of the connection that sent it, or None
    connection: str | None = None
    # whether the connection that sent it receives it, too
    echo: bool = True
    # epoch of the room's stream, and the place of the message in it; None if it is not kept
    epoch: str | None = None
    seq: int | None = None

    @property
    def is_for_all(self) -> bool:
        """Whether Django sent it to all connections of the project."""
        return self.room == PROJECT_ROOM and self.connection is None


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """A member of a room: a user, or a connection without a user."""

    # unique in the room
    id: str
    # displayed name
    name: str
    # JSON values that the member shares with the others
    state: dict[str, Any] = {}
    # user id that a client without a user claims to have; not verified
    claimed: str | None = None


class PresenceChange(msgspec.Struct, frozen=True, tag="presence", omit_defaults=True):
    """A member joined a room, left it, or changed its name or state."""

    project: str
    # name of the room
    room: str
    event: Literal["joined", "left", "updated"]
    member: Member
    # number of members after the change
    participants: int
    # number that each change of the room's members increases by one
    version: int


class DirectMessage(msgspec.Struct, frozen=True, tag="push"):
    """A message from the server to all connections of a user."""

    project: str
    # any JSON value
    message: Any
    # time, ISO 8601
    at: str
    # id of the user, as text
    user: str


class DisconnectRequested(msgspec.Struct, frozen=True, tag="kick", omit_defaults=True):
    """A request to every process to close the connections of a user or of a credential."""

    # close code
    code: int
    # id of the user, as text
    user: str | None = None
    # as in `Identity.credential`
    credential: str | None = None
    # if set, only the connections in this project are closed
    project: str | None = None
    # id of the only connection to close
    connection: str | None = None

    def concerns(self, identity: Identity, connection: str = "") -> bool:
        """Return whether a connection must be closed, which has this identity and id."""
        if self.connection is not None:
            return self.connection == connection
        by_user = self.user is not None and identity.user_key == self.user
        by_credential = self.credential is not None and identity.credential == self.credential
        return (by_user or by_credential) and self.project in (None, identity.project)


class PermissionsChanged(msgspec.Struct, frozen=True, tag="rights"):
    """A request to every process to evaluate the permissions of users again."""

    # ids of users, as text; None for all users
    users: tuple[str, ...] | None = None

    def concerns(self, identity: Identity | None) -> bool:
        """Return whether the permissions of an identity must be evaluated again."""
        if identity is None:
            return False
        return self.users is None or identity.user_key in self.users


class StateRequested(msgspec.Struct, frozen=True, tag="ask"):
    """A request to every other process to describe its state."""

    # unique; names the group that the answers are sent to
    id: str
    # what to describe: a key of `inspection.answers.DESCRIPTIONS`
    subject: str
    # name of the process that asks, which does not answer
    origin: str


class StatePart(msgspec.Struct, frozen=True, tag="answer"):
    """A part of an answer to `StateRequested`."""

    # id of the request
    request: str
    # unique name of the hub that answers
    hub: str
    # descriptions as JSON values
    items: list[Any]
    # whether this is the last part of the hub's answer
    is_last: bool


Event = (
    Change
    | LogAppended
    | Broadcast
    | PresenceChange
    | DirectMessage
    | DisconnectRequested
    | PermissionsChanged
    | StateRequested
    | StatePart
)

_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """Return an event as JSON."""
    return encode_json(event)


def decode(payload: bytes) -> Event:
    """Return the event that was encoded as JSON. Raises ``msgspec.DecodeError``."""
    return _decoder.decode(payload)


def now() -> str:
    """Return the current time as ISO 8601, in UTC with the offset ``+00:00``."""
    return datetime.now(UTC).isoformat()

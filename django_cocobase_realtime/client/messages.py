"""The values that the client returns: documents, events, room messages, presence changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a collection."""

    # the primary key, as a string
    id: str
    # the fields that this client may read, as JSON values
    data: Mapping[str, Any]
    # whether the document was too large to send; its data is empty then
    truncated: bool = False

    @classmethod
    def from_frame(cls, document: Mapping[str, Any]) -> Document:
        """Return the document for a ``document`` object of an event or a snapshot."""
        data = document.get("data")
        return cls(document["id"], {} if data is None else data, data is None)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a watch."""

    # "created", "updated" or "deleted"; also "entered" and "left" with `transitions`;
    # "snapshot" if one was requested; "resync" if missed events can no longer be delivered
    event: str
    # the name of the collection
    collection: str
    # the document's primary key; empty for "snapshot" and "resync"
    id: str = ""
    # the readable fields, as JSON values
    data: Mapping[str, Any] = field(default_factory=dict)
    # for "updated": the readable fields whose value changed; None if the server does not track them
    changed: tuple[str, ...] | None = None
    # position of the event in the collection's stream, for the `since` of a later watch; None if
    # the collection keeps no log
    cursor: str | None = None
    # time of the change in UTC, as ISO 8601
    at: str | None = None
    # the same for all changes of one database transaction
    transaction: str | None = None
    # whether the event was missed and is now delivered from the log
    replayed: bool = False
    # whether the document was too large to send, or the snapshot has more documents than its limit
    truncated: bool = False
    # the matching documents of a "snapshot"
    documents: tuple[Document, ...] = ()
    # why a "resync" is needed
    reason: str | None = None

    @classmethod
    def from_frame(cls, frame: Mapping[str, Any]) -> Event:
        """Return the event for an ``event`` frame of a collection."""
        document, changed = frame["document"], frame.get("changed")
        return cls(
            frame["event"],
            frame["collection"],
            document["id"],
            document.get("data", {}),
            None if changed is None else tuple(changed),
            frame.get("cursor"),
            frame.get("at"),
            frame.get("transaction"),
            frame.get("replayed", False),
            frame.get("truncated", False),
        )


@dataclass(frozen=True, slots=True)
class Message:
    """One broadcast in a room, or one message of the server."""

    # any JSON value
    message: Any
    # `id`, `name` and `verified` of the sender; None for an API key and for the server
    sender: Mapping[str, Any] | None
    # time of the message in UTC, as ISO 8601
    at: str | None = None
    # position in the room's history; None if the room does not keep the message
    cursor: str | None = None
    # whether the message comes from the room's history
    replayed: bool = False

    @classmethod
    def from_frame(cls, frame: Mapping[str, Any]) -> Message:
        """Return the message for a ``broadcast`` or ``direct`` event."""
        return cls(
            frame["message"],
            frame.get("sender"),
            frame.get("at"),
            frame.get("cursor"),
            frame.get("replayed", False),
        )


@dataclass(frozen=True, slots=True)
class Presence:
    """One change among the members of a room."""

    # "joined", "left" or "updated"
    event: str
    # the member's `id`, `name` and, if it has one, `state`
    member: Mapping[str, Any]
    # number of members after this change
    participants: int

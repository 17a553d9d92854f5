"""The values that a program receives: documents, events, messages and presence changes."""

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
    # whether the server's serializer failed; its data is empty then
    error: bool = False

    @classmethod
    def from_frame(cls, document: Mapping[str, Any]) -> Document:
        """Return the document in an ``event`` or ``snapshot`` frame."""
        data = document.get("data")
        error = document.get("error", False)
        return cls(document["id"], {} if data is None else data, data is None and not error, error)


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a watch."""

    # "created", "updated" or "deleted"; with `transitions` also "entered" or "left"; "snapshot" if
    # one was requested; "resync" if missed events can no longer be delivered
    event: str
    # the name of the collection
    collection: str
    # the document's primary key; empty for "snapshot" and "resync"
    id: str = ""
    # the readable fields, as JSON values
    data: Mapping[str, Any] = field(default_factory=dict)
    # for "updated": the readable fields whose value changed; None if the server does not track them
    changed: tuple[str, ...] | None = None
    # position of the event in the collection's stream, which a later watch can pass as `since`;
    # None if the collection has no log, or if the user's rights have changed, not the document
    cursor: str | None = None
    # time of the change in UTC, as ISO 8601
    at: str | None = None
    # the same for all changes of one database transaction
    transaction: str | None = None
    # whether the client missed the event, so that it was read from the log
    replayed: bool = False
    # whether the document was too large to send, or the snapshot has more documents than its limit
    truncated: bool = False
    # the matching documents of a "snapshot"
    documents: tuple[Document, ...] = ()
    # for "resync": why events were lost
    reason: str | None = None
    # whether the server's serializer failed, so that the data is missing
    error: bool = False
    # the scope of the watch with which `cursor` is valid; None if there is no `cursor`
    scope: str | None = None

    @classmethod
    def from_frame(cls, frame: Mapping[str, Any], scope: str | None = None) -> Event:
        """Return the event in an ``event`` frame of a collection.

        ``scope`` is that of the subscription.
        """
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
            frame.get("truncated", document.get("truncated", False)),
            error=document.get("error", False),
            scope=scope if "cursor" in frame else None,
        )


@dataclass(frozen=True, slots=True)
class Message:
    """A broadcast in a room, or a message from Django."""

    # any JSON value
    message: Any
    # `id`, `name` and `verified` of the sender; None for Django and for API keys without a user
    sender: Mapping[str, Any] | None
    # time of the message in UTC, as ISO 8601
    at: str | None = None
    # position in the room's history; None if the room does not keep the message
    cursor: str | None = None
    # whether the message comes from the room's history
    replayed: bool = False

    @classmethod
    def from_frame(cls, frame: Mapping[str, Any]) -> Message:
        """Return the message in a ``broadcast`` or ``direct`` event."""
        return cls(
            frame["message"],
            frame.get("sender"),
            frame.get("at"),
            frame.get("cursor"),
            frame.get("replayed", False),
        )


@dataclass(frozen=True, slots=True)
class Presence:
    """A change of a room's members."""

    # "joined", "left" or "updated"
    event: str
    # the member's `id`, `name` and, if it has one, `state`
    member: Mapping[str, Any]
    # number of members after this change
    participants: int

"""What the client hands out: documents, events, messages of rooms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Document:
    """``id`` is a string; ``data`` holds the readable fields, as JSON has them.

    One that is too large to be sent is ``truncated``: its data is empty.
    """

    id: str
    data: Mapping[str, Any]
    truncated: bool = False

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Document:
        """From the ``document`` of an event, or one of a snapshot."""
        data = document.get("data")
        return cls(document["id"], {} if data is None else data, data is None)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that a watch was told.

    ``event`` is ``created``, ``updated`` or ``deleted``; ``entered`` and ``left`` with
    ``transitions``; ``snapshot``, with ``documents``, where one was asked for; ``resync``, with
    ``reason``, where what was missed can not be told any more.
    """

    event: str
    collection: str
    id: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    changed: tuple[str, ...] | None = None
    cursor: str | None = None
    at: str | None = None
    transaction: str | None = None
    replayed: bool = False
    truncated: bool = False
    documents: tuple[Document, ...] = ()
    reason: str | None = None

    @classmethod
    def of(cls, frame: Mapping[str, Any]) -> Event:
        """From an ``event`` frame of a collection."""
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
    """What somebody said in a room. ``sender`` is None for a bare key and for the server."""

    message: Any
    sender: Mapping[str, Any] | None
    at: str | None = None
    cursor: str | None = None
    replayed: bool = False

    @classmethod
    def of(cls, frame: Mapping[str, Any]) -> Message:
        """From a ``broadcast`` event."""
        return cls(
            frame["message"],
            frame.get("sender"),
            frame.get("at"),
            frame.get("cursor"),
            frame.get("replayed", False),
        )


@dataclass(frozen=True, slots=True)
class Presence:
    """Somebody ``joined``, ``left``, or ``updated`` their state."""

    event: str
    member: Mapping[str, Any]
    participants: int

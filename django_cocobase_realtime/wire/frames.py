"""Outbound frames of the native dialect: plain functions from values to dictionaries.

Source: the public realtime page; its event examples are reproduced field for field.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from ..events import Member
from .codes import CloseCode, ErrorCode

PROTOCOL = 1
Frame = dict[str, Any]
_encoder = msgspec.json.Encoder()


def encode(frame: Mapping[str, Any]) -> str:
    """Frame to the text that goes on the wire."""
    return _encoder.encode(frame).decode()


def join_events(events: Sequence[str]) -> str:
    """Several event frames, encoded already, as one frame: for clients that take batches."""
    return '{"type":"events","events":[' + ",".join(events) + "]}"


def reply(type: str, id: str | int | None, **fields: Any) -> Frame:
    """A reply to a request, with the request's ``id`` where it had one."""
    frame = {"type": type, **fields}
    if id is not None:
        frame["id"] = id
    return frame


def error(
    code: ErrorCode, message: str, id: str | int | None = None, retry_after_ms: int | None = None
) -> Frame:
    """An error frame: ``message`` is one sentence that says what to do."""
    frame = reply("error", id, code=code.value, message=message)
    if retry_after_ms is not None:
        frame["retry_after_ms"] = retry_after_ms
    return frame


def closing(code: CloseCode, retry_after_ms: int | None = None) -> Frame:
    """The last frame before the server closes (some servers drop the close reason)."""
    return {
        "type": "closing",
        "code": int(code),
        "reason": code.reason,
        "retry_after_ms": retry_after_ms,
    }


def authenticated(
    id: str | int | None,
    *,
    connection: str,
    user: Mapping[str, str] | None,
    project: str,
    expires_at: datetime | None,
    heartbeat: int,
) -> Frame:
    """The answer to ``auth``; ``user`` is None for a bare key, ``heartbeat`` in seconds."""
    return reply(
        "authenticated",
        id,
        connection=connection,
        user=user,
        project=project,
        expires_at=None if expires_at is None else expires_at.isoformat(),
        heartbeat=heartbeat,
        protocol=PROTOCOL,
    )


def change(
    *,
    collection: str,
    event: str,
    document: Mapping[str, Any],
    subscriptions: Sequence[str],
    at: str,
    transaction: str,
    changed: Sequence[str] | None = None,
    cursor: str | None = None,
    replayed: bool = False,
) -> Frame:
    """A change of one document: ``created``, ``updated``, ``deleted``, ``entered`` or ``left``.

    ``cursor`` is None where no log keeps it; ``replayed`` marks what happened before.
    """
    frame: Frame = {
        "type": "event",
        "collection": collection,
        "event": event,
        "document": document,
    }
    if changed is not None:
        frame["changed"] = changed
    frame.update(subscriptions=subscriptions, transaction=transaction, at=at)
    if cursor is not None:
        frame["cursor"] = cursor
    if replayed:
        frame["replayed"] = True
    return frame


def cursor(subscription: str, cursor: str) -> Frame:
    """How far a subscription is complete, where no event of its own tells."""
    return {"type": "cursor", "subscription": subscription, "cursor": cursor}


def snapshot(
    subscription: str, documents: Sequence[Mapping[str, Any]], cursor: str | None, *, more: bool
) -> Frame:
    """A page of what matches now; the last one has ``more`` False."""
    return {
        "type": "snapshot",
        "subscription": subscription,
        "documents": documents,
        "cursor": cursor,
        "more": more,
    }


def broadcast(
    *,
    room: str,
    message: Any,
    sender: Mapping[str, Any] | None,
    at: str,
    cursor: str | None = None,
    replayed: bool = False,
) -> Frame:
    """A message that somebody (or the server: ``sender`` None) sent to a room.

    ``cursor`` is its place among what the room keeps; ``replayed`` marks what was said before.
    """
    frame: Frame = {
        "type": "event",
        "event": "broadcast",
        "room": room,
        "message": message,
        "sender": sender,
        "at": at,
    }
    if cursor is not None:
        frame["cursor"] = cursor
    if replayed:
        frame["replayed"] = True
    return frame


def direct(*, message: Any, at: str) -> Frame:
    """A message from the server to all connections of a user."""
    return {"type": "event", "event": "direct", "message": message, "sender": None, "at": at}


def member(member: Member) -> Frame:
    """Somebody in a room. ``verified`` False: the name is one that a client claimed."""
    frame: Frame = {"id": member.id, "name": member.name, "state": member.state}
    if member.claimed is not None:
        frame["verified"] = False
    return frame


def presence(*, room: str, event: str, member: Mapping[str, Any], participants: int) -> Frame:
    """Somebody ``joined`` or ``left`` a room, or ``updated`` his state."""
    return {
        "type": "presence",
        "room": room,
        "event": event,
        "member": member,
        "participants": participants,
    }

"""Frames that the server sends in the native dialect, made from plain values.

Source: the examples of the public realtime page, which events match field for field.
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
    """Return a frame as text."""
    return _encoder.encode(frame).decode()


def join_events(events: Sequence[str]) -> str:
    """Return one frame with several encoded events, for clients that accept batches."""
    return '{"type":"events","events":[' + ",".join(events) + "]}"


def reply(type: str, id: str | int | None, **fields: Any) -> Frame:
    """Return a reply to a request, with the request's ``id`` if it had one."""
    frame = {"type": type, **fields}
    if id is not None:
        frame["id"] = id
    return frame


def error(
    code: ErrorCode, message: str, id: str | int | None = None, retry_after_ms: int | None = None
) -> Frame:
    """Return an error. ``message`` is a sentence for the developer of the client."""
    frame = reply("error", id, code=code.value, message=message)
    if retry_after_ms is not None:
        frame["retry_after_ms"] = retry_after_ms
    return frame


def closing(code: CloseCode, retry_after_ms: int | None = None) -> Frame:
    """Return the last frame before a close, since some servers do not send the close reason."""
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
    """Return the reply to ``auth``.

    ``user`` is None for a key without a user. ``heartbeat`` is in seconds.
    """
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
    """Return a change of a document.

    ``event`` is ``created``, ``updated``, ``deleted``, ``entered`` or ``left``. ``cursor`` is
    None if the change is not logged. ``replayed`` marks changes from before the subscription.
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
    """Return the position up to which a subscription has received all of its events."""
    return {"type": "cursor", "subscription": subscription, "cursor": cursor}


def snapshot(
    subscription: str, documents: Sequence[Mapping[str, Any]], cursor: str | None, *, more: bool
) -> Frame:
    """Return a page of the documents that match now. The last one has ``more`` False."""
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
    """Return a message to a room. ``sender`` is None for the server.

    ``cursor`` is its place in the history of the room, if the room keeps it. ``replayed`` marks
    messages from before the client joined.
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
    """Return a message from the server to all connections of a user."""
    return {"type": "event", "event": "direct", "message": message, "sender": None, "at": at}


def member(member: Member) -> Frame:
    """Return a member of a room. ``verified`` is False for a name that a client claims."""
    frame: Frame = {"id": member.id, "name": member.name, "state": member.state}
    if member.claimed is not None:
        frame["verified"] = False
    return frame


def presence(*, room: str, event: str, member: Mapping[str, Any], participants: int) -> Frame:
    """Return a change of a room's members: one ``joined``, ``left``, or was ``updated``."""
    return {
        "type": "presence",
        "room": room,
        "event": event,
        "member": member,
        "participants": participants,
    }

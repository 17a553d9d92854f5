"""Functions that return the frames that the server sends in the native dialect.

Source: the examples of Cocobase's public documentation of its realtime API, which have the same
fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from msgspec import Raw

from ..events import Member
from ..utils.json_text import encode_json
from .codes import CloseCode, ErrorCode, ResyncReason

PROTOCOL = 1  # version of the protocol
# bytes of an event, a batch, or a page of documents or members, at most; daphne refuses to send
# frames of more than 1 MiB, and some clients to receive them
MAX_FRAME_BYTES = 512 * 1024
MAX_ERROR_LENGTH = 2000  # characters of an error message
Frame = dict[str, Any]


def encode(frame: Mapping[str, Any]) -> str:
    """Return a frame as text."""
    return encode_json(frame).decode()


def encode_part(value: Any) -> bytes:
    """Return a value as JSON, which a frame may contain as ``msgspec.Raw``."""
    return encode_json(value)


def join_events(events: Sequence[str]) -> str:
    """Return one frame with several encoded events, for clients that accept batches."""
    return '{"type":"events","events":[' + ",".join(events) + "]}"


def reply(type: str, id: str | int | None, **fields: Any) -> Frame:
    """Return the reply to a request, with the ``id`` of the request if it has one."""
    frame = {"type": type, **fields}
    if id is not None:
        frame["id"] = id
    return frame


def error(
    code: ErrorCode,
    message: str,
    id: str | int | None = None,
    retry_after_ms: int | None = None,
    **ended: str,
) -> Frame:
    """Return an error. ``message`` is for the developer of the client.

    ``ended`` is ``subscription`` or ``room``, with its name, if the error has ended that.
    """
    frame = reply("error", id, code=code.value, message=shorten(message), **ended)
    if retry_after_ms is not None:
        frame["retry_after_ms"] = retry_after_ms
    return frame


def shorten(message: str) -> str:
    """Return an error message, which may quote long names from a request, at a bounded length."""
    if len(message) <= MAX_ERROR_LENGTH:
        return message
    return message[:MAX_ERROR_LENGTH] + "…"


def closing(code: CloseCode, retry_after_ms: int | None = None) -> Frame:
    """Return the last frame before a close.

    It repeats the code and the reason, because some ASGI servers do not send the reason.
    """
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
    limits: Mapping[str, Any],
    now: str,
) -> Frame:
    """Return the reply to ``auth``.

    ``user`` has ``id`` and ``name``, and is None for a key without a user. ``heartbeat`` is the
    number of seconds between the pings that the client should send. ``limits`` are those that the
    client itself can keep to, and ``now`` is the time of the server.
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
        limits=limits,
        now=now,
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
    """Return the event for a change of a document.

    ``event`` is ``created``, ``updated``, ``deleted``, ``entered`` or ``left``. ``cursor`` is
    None if the change is not logged. ``replayed`` flags a change that the client has missed.
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
    """Return the cursor up to which a subscription has been sent all of its events."""
    return {"type": "cursor", "subscription": subscription, "cursor": cursor}


def snapshot(
    subscription: str, documents: Sequence[Any], cursor: str | None, *, more: bool
) -> Frame:
    """Return a page of a snapshot. ``more`` is whether further pages follow."""
    return {
        "type": "snapshot",
        "subscription": subscription,
        "documents": documents,
        "cursor": cursor,
        "more": more,
    }


def resync(
    subscription: str, reason: ResyncReason, *, scope: str, cursor: str | None = None
) -> Frame:
    """Return the request to load the data of a subscription again, which continues.

    ``scope`` is that of the events from now on. ``cursor`` is the position after which they come;
    None if a snapshot follows, which has one, or if the collection keeps no log.
    """
    frame = {"type": "resync", "subscription": subscription, "reason": reason.value, "scope": scope}
    if cursor is not None:
        frame["cursor"] = cursor
    return frame


def move_part(
    subscription: str,
    *,
    entered: Sequence[Any],
    left: Sequence[Any],
    cursor: str,
    scope: str | None,
) -> Frame:
    """Return a part of a move: documents that changed rights show, and ids of those they hide.

    ``cursor`` is the position as of which the documents are read. ``scope`` is that of the events
    after the move, which the last part has; None if further parts follow.
    """
    frame: Frame = {
        "type": "moved",
        "subscription": subscription,
        "entered": entered,
        "left": left,
        "cursor": cursor,
    }
    if scope is not None:
        frame["scope"] = scope
    frame["more"] = scope is None
    return frame


def moved(
    subscription: str,
    *,
    entered: Iterable[bytes],
    left: Iterable[str],
    cursor: str,
    scope: str,
    max_bytes: int,
) -> Iterator[str]:
    """Yield a move as encoded frames of at most ``max_bytes``, first the ids that left.

    ``entered`` are encoded documents, see `encode_part`; a larger one has a frame of its own. There
    is at least one frame, since the client needs the new ``scope``. Both iterables are read as far
    as the frame needs that is yielded.
    """
    part = partial(move_part, subscription, cursor=cursor)
    documents: list[Raw] = []
    ids: list[Raw] = []
    size = empty_size = len(encode_json(part(entered=(), left=(), scope=scope)))
    for values, target in ((map(encode_part, left), ids), (entered, documents)):
        for value in values:
            if size + len(value) > max_bytes and size > empty_size:
                yield encode(part(entered=documents, left=ids, scope=None))
                documents.clear()
                ids.clear()
                size = empty_size
            target.append(Raw(value))
            size += len(value) + 1
    yield encode(part(entered=documents, left=ids, scope=scope))


def broadcast(
    *,
    room: str,
    message: Any,
    sender: Mapping[str, Any] | None,
    at: str,
    cursor: str | None = None,
    replayed: bool = False,
) -> Frame:
    """Return the event for a broadcast in a room.

    ``sender`` is None if Django sent it. ``cursor`` is its position in the room's history, or None
    if it is not kept. ``replayed`` flags a broadcast that was sent before the client joined.
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
    """Return the event for a message from Django to a user."""
    return {"type": "event", "event": "direct", "message": message, "sender": None, "at": at}


def member(member: Member) -> Frame:
    """Return a member of a room, with ``"verified": false`` if the client claims its name."""
    frame: Frame = {"id": member.id, "name": member.name, "state": member.state}
    if member.claimed is not None:
        frame["verified"] = False
    return frame


def members_page(
    members: Sequence[Member], max_bytes: int = MAX_FRAME_BYTES
) -> tuple[list[Frame], Sequence[Member]]:
    """Return the first members, as many as fit into a frame, and the others."""
    page: list[Frame] = []
    size = 0
    for number, listed in enumerate(members):
        frame = member(listed)
        size += len(encode_json(frame)) + 1
        if page and size > max_bytes:
            return page, members[number:]
        page.append(frame)
    return page, ()


def members(room: str, members: Sequence[Frame], *, more: bool) -> Frame:
    """Return further members of a room that was joined, which did not fit into ``joined``.

    ``more`` is whether others follow.
    """
    return {"type": "members", "room": room, "members": members, "more": more}


def presence(*, room: str, event: str, member: Mapping[str, Any], participants: int) -> Frame:
    """Return a change of a room's members.

    ``event`` is ``joined``, ``left`` or ``updated``. ``participants`` is the number of members.
    """
    return {
        "type": "presence",
        "room": room,
        "event": event,
        "member": member,
        "participants": participants,
    }

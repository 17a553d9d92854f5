"""The dialect of the published Cocobase SDKs: what they send first, and the frames they receive.

An SDK opens one socket for each collection and each room that it uses, and one for broadcasts to
the project. Source: the npm, Go, Flutter and Godot SDKs as they are published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..events import Broadcast, Member, PresenceChange, now
from .codes import CloseCode
from .frames import Frame
from .json import InvalidJson, parse_object

# dialect by kind of socket
COLLECTIONS = "sdk.collections"
BROADCAST = "sdk.broadcast"
ROOMS = "sdk.rooms"
# id and name of senders that are not users
ANONYMOUS = ("anonymous", "Anonymous")
SERVER = ("server", "Server")
# event of a frame by the operation of a change
OPS = {"created": "create", "updated": "update", "deleted": "delete"}


class InvalidFrame(ValueError):
    """The frame is not valid in this dialect. The message says why."""


def parse(text: str) -> Mapping[str, Any]:
    """Return the JSON object in a frame. Raises `InvalidFrame`."""
    try:
        return parse_object(text)
    except InvalidJson as error:
        raise InvalidFrame(str(error)) from None


def credential(frame: Mapping[str, Any]) -> str | None:
    """Return the credential in the first frame, or None."""
    for key in ("api_key", "token"):
        value = frame.get(key)
        if isinstance(value, str) and value:
            return value
    return None


def text_value(frame: Mapping[str, Any], key: str) -> str | None:
    """Return a value that clients send as text or as a number, or None.

    Raises `InvalidFrame` for any other type.
    """
    value = frame.get(key)
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise InvalidFrame(f"{key} must be a string.")


def claimed_user(frame: Mapping[str, Any]) -> tuple[str, str]:
    """Return the user id and the name that a client claims. Raises `InvalidFrame`."""
    return text_value(frame, "user_id") or ANONYMOUS[0], text_value(
        frame, "user_name"
    ) or ANONYMOUS[1]


# replies


def error(message: str, detail: str | None = None, **more: Any) -> Frame:
    """Return an error. It has a ``type`` because some SDKs dispatch frames by it."""
    frame: Frame = {"type": "error", "error": message, **more}
    if detail is not None:
        frame["error_detail"] = detail
    return frame


NO_KEY = error("API key is required")
BAD_KEY = error("Invalid API key", "Project not found")


def closing(code: CloseCode) -> Frame:
    """Return the error that explains a close, if no other frame did."""
    if code is CloseCode.AUTH_TIMEOUT:
        return error("Authentication timeout")
    return error(code.reason)


def connected_to_collection(name: str, filters: Mapping[str, Any]) -> Frame:
    """Return the confirmation that a collection is watched."""
    frame: Frame = {"event": "connected", "collection_id": name}
    if filters:
        frame["filters"] = filters
    return frame


def connected_to_project(project: str, user_id: str) -> Frame:
    """Return the confirmation that broadcasts to the project are received."""
    return {"event": "connected", "project_id": project, "user_id": user_id}


def joined(room: str, title: str, participants: int, user_id: str) -> Frame:
    """Return the confirmation that a room was joined."""
    return {
        "event": "joined",
        "room_id": room,
        "room_title": title,
        "participants": participants,
        "user_id": user_id,
    }


# events


def change(
    *,
    collection: str,
    op: str,
    id: str,
    data: Mapping[str, Any],
    created_at: str | None = None,
    updated_at: str | None = None,
    old: Mapping[str, Any] | None = None,
) -> Frame:
    """Return a change of a document.

    The document is in the frame twice: as ``data`` for most SDKs, and as ``document`` for
    version 1.6 of the JavaScript SDK. ``op`` is that of the native dialect. ``old`` has the
    former values of the changed fields.
    """
    shared = {"id": id, "data": data}
    times = {"collection_id": collection, "created_at": created_at, "updated_at": updated_at}
    frame: Frame = {
        "event": OPS[op],
        "collection_id": collection,
        "data": {**shared, "collection": collection, **times},
        "document": {**shared, "collection": {"id": collection, "name": collection}, **times},
    }
    if old:
        frame["old_data"] = old
    return frame


def broadcast(event: Broadcast, dialect: str, title: str) -> Frame | None:
    """Return a message to a room or to the project; None if the dialect has no frame for it."""
    id, name = _sender(event)
    frame = {"type": "message", "user_id": id, "user_name": name, "timestamp": event.at}
    if dialect == ROOMS and not event.is_for_all:
        info = {"id": event.room, "title": title or event.room}
        return {**frame, "content": event.message, "room_info": info}
    if dialect == BROADCAST:
        return {**frame, "data": event.message}
    return None


def _sender(event: Broadcast) -> tuple[str, str]:
    """Return the id and name of the sender."""
    if event.sender is not None:
        return event.sender.id or ANONYMOUS[0], event.sender.name
    return SERVER if event.connection is None else ANONYMOUS


def presence(event: PresenceChange, dialect: str, title: str) -> Frame | None:
    """Return a change of a room's members; None if the dialect has no frame for it."""
    if dialect != ROOMS or event.event == "updated":
        return None
    return {
        "type": f"user_{event.event}",
        "user_id": displayed_id(event.member),
        "user_name": event.member.name,
        "timestamp": now(),
        "room_info": {
            "id": event.room,
            "title": title or event.room,
            "participants": event.participants,
        },
    }


def displayed_id(member: Member) -> str:
    """Return the user id to display: that of the user, or the one that a client claims."""
    return member.id if member.claimed is None else member.claimed

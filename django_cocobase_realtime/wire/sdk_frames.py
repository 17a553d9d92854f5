"""The dialect of the published Cocobase SDKs: their first frame, and all frames that they get.

There is one socket for each thing: a collection, the project's broadcast, a room. Source: the
npm, Go, Flutter and Godot SDKs as they are published; frames are plain functions of values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..events import Broadcast, Member, PresenceChange, now
from .codes import CloseCode
from .frames import Frame
from .json import InvalidJson, parse_object

COLLECTIONS = "sdk.collections"
BROADCAST = "sdk.broadcast"
ROOMS = "sdk.rooms"
ANONYMOUS = ("anonymous", "Anonymous")
SERVER = ("server", "Server")
OPS = {"created": "create", "updated": "update", "deleted": "delete"}


class InvalidFrame(ValueError):
    """The frame is none that this dialect knows; the message says why."""


def parse(text: str) -> Mapping[str, Any]:
    """A frame's JSON object. Raises `InvalidFrame`."""
    try:
        return parse_object(text)
    except InvalidJson as error:
        raise InvalidFrame(str(error)) from None


def credential(frame: Mapping[str, Any]) -> str | None:
    """The credential in the first frame; None where there is none."""
    for key in ("api_key", "token"):
        value = frame.get(key)
        if isinstance(value, str) and value:
            return value
    return None


def text_value(frame: Mapping[str, Any], key: str) -> str | None:
    """A text that clients also send as a number. Raises `InvalidFrame` for anything else."""
    value = frame.get(key)
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise InvalidFrame(f"{key} must be a string.")


def claimed_user(frame: Mapping[str, Any]) -> tuple[str, str]:
    """Whom the client says it is: a user id and a name. Raises `InvalidFrame`."""
    return text_value(frame, "user_id") or ANONYMOUS[0], text_value(
        frame, "user_name"
    ) or ANONYMOUS[1]


# answers


def error(message: str, detail: str | None = None, **more: Any) -> Frame:
    """An error; ``type`` is there for the sake of those who sort frames by it."""
    frame: Frame = {"type": "error", "error": message, **more}
    if detail is not None:
        frame["error_detail"] = detail
    return frame


NO_KEY = error("API key is required")
BAD_KEY = error("Invalid API key", "Project not found")


def closing(code: CloseCode) -> Frame:
    """Why the server closes, where nothing else has said so."""
    if code is CloseCode.AUTH_TIMEOUT:
        return error("Authentication timeout")
    return error(code.reason)


def connected_to_collection(name: str, filters: Mapping[str, Any]) -> Frame:
    """The collection is watched."""
    frame: Frame = {"event": "connected", "collection_id": name}
    if filters:
        frame["filters"] = filters
    return frame


def connected_to_project(project: str, user_id: str) -> Frame:
    """What is broadcast in the project is heard."""
    return {"event": "connected", "project_id": project, "user_id": user_id}


def joined(room: str, title: str, participants: int, user_id: str) -> Frame:
    """The room is joined."""
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
    """A change of one document, twice: ``data`` for most, ``document`` for JavaScript 1.6.

    ``op`` as in the native dialect; ``old``: values that changed, as they were.
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
    """What somebody said in a room, or to the project; None for sockets that are neither."""
    id, name = _sender(event)
    said = {"type": "message", "user_id": id, "user_name": name, "timestamp": event.at}
    if dialect == ROOMS and not event.is_for_all:
        info = {"id": event.room, "title": title or event.room}
        return {**said, "content": event.message, "room_info": info}
    if dialect == BROADCAST:
        return {**said, "data": event.message}
    return None


def _sender(event: Broadcast) -> tuple[str, str]:
    if event.sender is not None:
        return event.sender.id or ANONYMOUS[0], event.sender.name
    return SERVER if event.connection is None else ANONYMOUS


def presence(event: PresenceChange, dialect: str, title: str) -> Frame | None:
    """Somebody came or went; None for sockets and changes that have no word for it."""
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
    """The user id that people see: a user's own, or the one that a client without one claims."""
    return member.id if member.claimed is None else member.claimed

"""Frames of the published Cocobase SDKs: those that they send first, and those they receive.

An SDK opens a socket for each collection and each room that it uses, and one for broadcasts to the
whole project. Source: the code of the published npm, Go, Flutter and Godot SDKs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..events import Broadcast, Member, PresenceChange, now
from .codes import CloseCode
from .frames import Frame, shorten
from .json import InvalidJson, parse_object

# dialects of the kinds of sockets, see `Connection.dialect`
COLLECTIONS = "sdk.collections"
BROADCAST = "sdk.broadcast"
ROOMS = "sdk.rooms"
# id and name of a sender that claims none
ANONYMOUS = ("anonymous", "Anonymous")
# id and name that stand for Django as the sender
SERVER = ("server", "Server")
# `event` of a frame by the operation of a change
OPS = {"created": "create", "updated": "update", "deleted": "delete"}


class InvalidFrame(ValueError):
    """A frame is not valid in this dialect. The message is for the client."""


def parse(text: str) -> Mapping[str, Any]:
    """Return the JSON object in a text frame. Raises `InvalidFrame` if it is not valid."""
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
    """Return a value as text, or None if it is missing or empty. SDKs may also send a number.

    Raises `InvalidFrame` if it has another type.
    """
    value = frame.get(key)
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return json.dumps(value)
    raise InvalidFrame(f"{key} must be a string.")


def claimed_user(frame: Mapping[str, Any]) -> tuple[str, str]:
    """Return the user id and name that a client claims. Raises `InvalidFrame` if not valid."""
    return text_value(frame, "user_id") or ANONYMOUS[0], text_value(
        frame, "user_name"
    ) or ANONYMOUS[1]


# replies


def error(message: str, detail: str | None = None, **more: Any) -> Frame:
    """Return an error. It has a ``type``, because some SDKs choose a handler by it."""
    frame: Frame = {"type": "error", "error": shorten(message), **more}
    if detail is not None:
        frame["error_detail"] = shorten(detail)
    return frame


# the reply to a first frame without a credential
NO_KEY = error("API key is required")
# the reply to a first frame with a wrong credential
BAD_KEY = error("Invalid API key", "Project not found")


def closing(code: CloseCode) -> Frame:
    """Return the error that is sent before a close, unless another error has explained it."""
    if code is CloseCode.AUTH_TIMEOUT:
        return error("Authentication timeout")
    return error(code.reason)


def connected_to_collection(name: str, filters: Mapping[str, Any]) -> Frame:
    """Return the reply that confirms a subscription to a collection."""
    frame: Frame = {"event": "connected", "collection_id": name}
    if filters:
        frame["filters"] = filters
    return frame


def connected_to_project(project: str, user_id: str) -> Frame:
    """Return the reply that confirms a socket for broadcasts to the project."""
    return {"event": "connected", "project_id": project, "user_id": user_id}


def joined(room: str, title: str, participants: int, user_id: str) -> Frame:
    """Return the reply that confirms that a room was joined."""
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
    failed: bool = False,
) -> Frame:
    """Return the event for a change of a document.

    The frame contains the document twice: as ``data`` for most SDKs, and as ``document`` for
    version 1.6 of the JavaScript SDK. ``op`` is ``created``, ``updated`` or ``deleted``. ``old``
    has the values of the changed fields before the change. ``failed`` is whether the serializer
    raised, so that the data is not known.
    """
    shared: Frame = {"id": id, "data": data}
    if failed:
        shared["error"] = True
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
    """Return the event for a broadcast, or None if the dialect has no frame for it.

    ``title`` is that of the room.
    """
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
    """Return the event for a change of a room's members, or None if the dialect has none.

    ``title`` is that of the room.
    """
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
    """Return the id of a member as SDKs show it, which for a client without a user is claimed."""
    return member.id if member.claimed is None else member.claimed

"""Inbound frames of the native dialect as typed values.

``decode`` is the only way in: text → bounded JSON (``scan``) → one of the classes below. Unknown
keys are ignored, so that newer clients can talk to older servers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec

from .codes import ErrorCode
from .json import InvalidJson, parse_object

Id = Annotated[str, msgspec.Meta(max_length=64)] | int | None
Name = Annotated[str, msgspec.Meta(min_length=1)]
EventName = Literal["created", "updated", "deleted"]


class Message(msgspec.Struct, frozen=True, tag_field="type"):
    """What every request may carry: ``id``, echoed by its reply."""

    id: Id = None


class Auth(Message, frozen=True, tag="auth"):
    """The first message. ``token`` is left out where the Django session identifies the user."""

    token: str | None = None
    batch: bool = False


class Snapshot(msgspec.Struct, frozen=True):
    """Which of the current documents are wanted: ``limit`` of them, in ``order``."""

    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    order: str | None = None


class Subscribe(Message, frozen=True, tag="subscribe", kw_only=True, omit_defaults=True):
    """Watch a collection. ``subscription`` names it, by default as the collection."""

    collection: Name
    subscription: Name | None = None
    filters: dict[str, Any] | None = None
    document: str | int | None = None
    fields: list[str] | None = None
    events: list[EventName] | None = None
    changed: list[str] | None = None
    transitions: bool = False
    since: str | None = None
    scope: str | None = None
    snapshot: bool | Snapshot = False


class Unsubscribe(Message, frozen=True, tag="unsubscribe"):
    """Stop one subscription by its name, or all those of a collection."""

    collection: Name | None = None
    subscription: Name | None = None


class Join(Message, frozen=True, tag="join", kw_only=True):
    """Enter a room; ``presence`` False enters it unlisted. ``history`` and ``since`` ask for what
    was said before, the last so many broadcasts or all after a cursor.
    """

    room: Name
    presence: bool = True
    state: dict[str, Any] | None = None
    history: Annotated[int, msgspec.Meta(ge=0)] = 0
    since: str | None = None


class Leave(Message, frozen=True, tag="leave", kw_only=True):
    """Leave a room."""

    room: Name


class State(Message, frozen=True, tag="state", kw_only=True):
    """Tell the others in a room how I am: typing, away, where my cursor is."""

    room: Name
    state: dict[str, Any]


class Broadcast(Message, frozen=True, tag="broadcast", kw_only=True):
    """Send any JSON to everyone in a room that the sender has joined.

    ``ephemeral``: not worth keeping. ``idempotency_key``: seen twice, sent once.
    """

    room: Name
    message: Any
    echo: bool = True
    ephemeral: bool = False
    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


class Ping(Message, frozen=True, tag="ping"):
    """Answered with ``pong``, before ``auth`` too."""


class Ack(Message, frozen=True, tag="ack", kw_only=True):
    """The client has taken every event up to this cursor. Not answered."""

    cursor: str


Command = Auth | Subscribe | Unsubscribe | Join | Leave | State | Broadcast | Ping | Ack
COMMAND_TYPES = {
    "auth": Auth,
    "subscribe": Subscribe,
    "unsubscribe": Unsubscribe,
    "join": Join,
    "leave": Leave,
    "state": State,
    "broadcast": Broadcast,
    "ping": Ping,
    "ack": Ack,
}


class InvalidCommand(ValueError):
    """A frame that is no command. ``code`` is bad_request or unknown_type, ``id`` its request."""

    def __init__(self, code: ErrorCode, message: str, id: str | int | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.id = id


def decode(text: str) -> Command:
    """One text frame to a command. Raises `InvalidMessage`; the raw text ``ping`` is a ping."""
    if text == "ping":
        return Ping()
    try:
        frame = parse_object(text)
    except InvalidJson as error:
        raise InvalidCommand(ErrorCode.BAD_REQUEST, str(error)) from None
    id = frame.get("id")
    if isinstance(id, bool) or not isinstance(id, int | str | None):
        raise InvalidCommand(ErrorCode.BAD_REQUEST, "id must be a string or an integer.")
    if isinstance(id, str) and len(id) > 64:
        raise InvalidCommand(ErrorCode.BAD_REQUEST, "id may have 64 characters at most.")
    kind = frame.get("type")
    if not isinstance(kind, str):
        raise InvalidCommand(ErrorCode.BAD_REQUEST, "type must be a string.", id)
    schema = COMMAND_TYPES.get(kind)
    if schema is None:
        known = ", ".join(COMMAND_TYPES)
        raise InvalidCommand(ErrorCode.UNKNOWN_TYPE, f"Unknown type; known are {known}.", id)
    try:
        command: Command = msgspec.convert(frame, schema)
    except msgspec.ValidationError as error:
        raise InvalidCommand(ErrorCode.BAD_REQUEST, validation_message(str(error)), id) from None
    return command


def validation_message(error: str) -> str:
    """Msgspec's "Expected `str`, got `int` - at `$.room`" in the words of the wire."""
    reason, _, place = error.partition(" - at `$")
    place = place.rstrip("`").lstrip(".")
    for python, wire in _WORDS:
        reason = reason.replace(python, wire)
    if reason.startswith("Invalid enum value"):  # there is one enum on the wire
        reason += f"; there are {', '.join(get_args(EventName))}"
    return f"{place}: {reason}." if place else f"{reason}."


_WORDS = (
    ("`str`", "string"),
    ("`int`", "integer"),
    ("`bool`", "boolean"),
    ("`object`", "object"),
    ("`array`", "array"),
    ("Object missing required field ", "missing "),
)

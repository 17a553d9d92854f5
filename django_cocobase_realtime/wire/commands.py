"""Commands: the frames that clients of the native dialect send, as typed values.

`decode` parses the text as bounded JSON (see ``json``) and converts it to one of the classes
below. Unknown keys are ignored, so that newer clients work with older servers.
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
    """The base of all commands."""

    # repeated in the reply
    id: Id = None


class Auth(Message, frozen=True, tag="auth"):
    """Authenticate; the first message of a connection."""

    # None if the Django session identifies the user
    token: str | None = None
    # whether the client accepts several events in one frame
    batch: bool = False


class Snapshot(msgspec.Struct, frozen=True):
    """The current documents that a subscriber wants first."""

    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    # name of a field, with "-" in front for descending order
    order: str | None = None


class Subscribe(Message, frozen=True, tag="subscribe", kw_only=True, omit_defaults=True):
    """Watch a collection."""

    collection: Name
    # name of the subscription; by default that of the collection
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
    """Join a room."""

    room: Name
    # whether the other members see the client
    presence: bool = True
    state: dict[str, Any] | None = None
    # number of earlier broadcasts to receive
    history: Annotated[int, msgspec.Meta(ge=0)] = 0
    # cursor after which to receive all earlier broadcasts
    since: str | None = None


class Leave(Message, frozen=True, tag="leave", kw_only=True):
    """Leave a room."""

    room: Name


class State(Message, frozen=True, tag="state", kw_only=True):
    """Set the state that the other members of a room see: typing, away, a position."""

    room: Name
    state: dict[str, Any]


class Broadcast(Message, frozen=True, tag="broadcast", kw_only=True):
    """Send any JSON to all members of a room that the sender has joined."""

    room: Name
    message: Any
    # whether the sending connection receives it, too
    echo: bool = True
    # whether the room's history leaves it out
    ephemeral: bool = False
    # of several broadcasts with the same key, only the first is sent
    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


class Ping(Message, frozen=True, tag="ping"):
    """Ask for a ``pong``. Allowed before ``auth``, too."""


class Ack(Message, frozen=True, tag="ack", kw_only=True):
    """Acknowledge all events up to a cursor. Has no reply."""

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
    """The frame is not a command."""

    def __init__(self, code: ErrorCode, message: str, id: str | int | None = None) -> None:
        super().__init__(message)
        # bad_request or unknown_type
        self.code = code
        # id of the request, if it has a valid one
        self.id = id


def decode(text: str) -> Command:
    """Return the command in a text frame. Raises `InvalidCommand`."""
    if text == "ping":  # also allowed as plain text
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
    """Reword a message of msgspec for clients, who do not know Python's types.

    "Expected `str`, got `int` - at `$.room`" becomes "room: Expected string, got integer."
    """
    reason, _, path = error.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    for python_term, wire_term in _TERMS:
        reason = reason.replace(python_term, wire_term)
    if reason.startswith("Invalid enum value"):  # there is only one enum
        reason += f"; there are {', '.join(get_args(EventName))}"
    return f"{path}: {reason}." if path else f"{reason}."


_TERMS = (
    ("`str`", "string"),
    ("`int`", "integer"),
    ("`bool`", "boolean"),
    ("`object`", "object"),
    ("`array`", "array"),
    ("Object missing required field ", "missing "),
)

"""Commands: the frames that clients of the native dialect send, as typed values.

`decode` parses the text as JSON within limits (see ``json``), and converts it to one of the classes
below. Unknown keys are ignored, so that newer clients work with older servers.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

import msgspec

from .codes import ErrorCode
from .json import InvalidJson, parse_object
from .request_ids import MAX_ID_LENGTH, find_id

# id of a request, which the client chooses
Id = Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH)] | int | None
# name of a collection, room or subscription
Name = Annotated[str, msgspec.Meta(min_length=1)]
EventName = Literal["created", "updated", "deleted"]


class Message(msgspec.Struct, frozen=True, tag_field="type"):
    """Base class of all commands."""

    # repeated in the reply
    id: Id = None


class Auth(Message, frozen=True, tag="auth"):
    """Authenticate the connection, or renew its credential. Must be the first command."""

    # API key or JWT; None to use the Django session
    token: str | None = None
    # whether the client accepts several events in one frame
    batch: bool = False


class Snapshot(msgspec.Struct, frozen=True):
    """The documents that a subscription gets before its events."""

    # number of documents; None for the server's limit
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    # fields to sort by, each with a leading "-" for descending order, in a list or separated by
    # commas; None for the primary key
    order: str | list[str] | None = None


class Window(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first documents in an order, which the server keeps up to date."""

    # number of documents; None for the server's limit
    limit: Annotated[int, msgspec.Meta(ge=1)] | None = None
    # fields to sort by, as in `Snapshot`
    order: str | list[str] | None = None
    # cursor of a page, behind which the window begins; None for the first page
    after: str | None = None


class Aggregate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Aggregates of the matching documents, which the server keeps up to date.

    The number of documents is always one of them.
    """

    # accepted for clarity; the documents are counted in any case
    count: Literal[True] = True
    # names of fields
    sum: list[str] = []
    avg: list[str] = []
    min: list[str] = []
    max: list[str] = []
    # names of fields whose values make the groups
    group_by: list[str] = []


class Subscribe(Message, frozen=True, tag="subscribe", kw_only=True, omit_defaults=True):
    """Subscribe to the events of a collection."""

    collection: Name
    # name of the subscription; None for that of the collection
    subscription: Name | None = None
    # filter that documents must match
    filters: dict[str, Any] | None = None
    # id of the only document to get events of
    document: str | int | None = None
    # fields of a document's data; None for all readable ones
    fields: list[str] | None = None
    # events to get; None for all
    events: list[EventName] | None = None
    # get an update only if one of these fields changed
    changed: list[str] | None = None
    # whether updates after which a document begins or ceases to match are "entered" and "left"
    transitions: bool = False
    # cursor from which to resume
    since: str | None = None
    # scope of the subscription from which the cursor comes
    scope: str | None = None
    # whether to get the documents that match now, and which of them
    snapshot: bool | Snapshot = False
    # the window to get instead of events
    window: Window | None = None
    # the aggregates to get instead of events
    aggregate: Aggregate | None = None


class Unsubscribe(Message, frozen=True, tag="unsubscribe"):
    """End one subscription by its name, or all subscriptions to a collection."""

    # only one of the two may be set
    collection: Name | None = None
    subscription: Name | None = None


class Join(Message, frozen=True, tag="join", kw_only=True):
    """Join a room."""

    room: Name
    # whether the client is one of the members
    presence: bool = True
    # the member's state; None leaves it unchanged
    state: dict[str, Any] | None = None
    # number of kept broadcasts to receive
    history: Annotated[int, msgspec.Meta(ge=0)] = 0
    # cursor after which to receive all kept broadcasts
    since: str | None = None


class Leave(Message, frozen=True, tag="leave", kw_only=True):
    """Leave a room."""

    room: Name


class State(Message, frozen=True, tag="state", kw_only=True):
    """Set the member's state, which the other members of a room see, such as ``typing``."""

    room: Name
    state: dict[str, Any]


class Broadcast(Message, frozen=True, tag="broadcast", kw_only=True):
    """Send a message to all members of a room that the client has joined."""

    room: Name
    # any JSON value
    message: Any
    # whether the client receives it, too
    echo: bool = True
    # whether the message is not kept, even if the room has a history
    ephemeral: bool = False
    # of several broadcasts with the same key, only the first is sent
    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None


class Ping(Message, frozen=True, tag="ping"):
    """Request a ``pong``. Allowed before ``auth``."""


class Ack(Message, frozen=True, tag="ack", kw_only=True):
    """Acknowledge all events up to a cursor. There is no reply."""

    cursor: str


# all commands
Command = Auth | Subscribe | Unsubscribe | Join | Leave | State | Broadcast | Ping | Ack
# classes by the `type` of their frames
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
    """A frame is not a valid command. The message is for the client."""

    def __init__(self, code: ErrorCode, message: str, id: str | int | None = None) -> None:
        super().__init__(message)
        # bad_request or unknown_type
        self.code = code
        # id of the request, if it has a valid one
        self.id = id


def decode(text: str) -> Command:
    """Return the command in a text frame. Raises `InvalidCommand` if it is not valid."""
    if text == "ping":  # also allowed as plain text
        return Ping()
    try:
        frame = parse_object(text)
    except InvalidJson as error:
        raise InvalidCommand(ErrorCode.BAD_REQUEST, str(error), find_id(text)) from None
    id = frame.get("id")
    if isinstance(id, bool) or not isinstance(id, int | str | None):
        raise InvalidCommand(ErrorCode.BAD_REQUEST, "id must be a string or an integer.")
    if isinstance(id, str) and len(id) > MAX_ID_LENGTH:
        message = f"id may have {MAX_ID_LENGTH} characters at most."
        raise InvalidCommand(ErrorCode.BAD_REQUEST, message)
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
    """Return a message of msgspec with JSON's names of types instead of Python's.

    "Expected `str`, got `int` - at `$.room`" becomes "room: Expected string, got integer."
    """
    reason, _, path = error.partition(" - at `$")
    path = path.rstrip("`").lstrip(".")
    for python_term, wire_term in _TERMS:
        reason = reason.replace(python_term, wire_term)
    if reason.startswith("Invalid enum value"):  # the only one is EventName
        reason += f"; use {', '.join(get_args(EventName))}"
    return f"{path}: {reason}." if path else f"{reason}."


# Python's terms and those of JSON
_TERMS = (
    ("`str`", "string"),
    ("`int`", "integer"),
    ("`bool`", "boolean"),
    ("`object`", "object"),
    ("`array`", "array"),
    ("Object missing required field ", "missing "),
)

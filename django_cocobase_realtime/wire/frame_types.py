"""The keys of the frames that the server sends in the native dialect, as types.

The server builds its frames as dictionaries, with the functions in ``frames`` and
``result_frames``. These types describe them for the AsyncAPI document and for tests. A key that may
be absent has the default `UNSET`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from .codes import CloseCode, ErrorCode, ResyncReason

Time = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
# id of the request; absent if the request has none
RequestId = str | int | UnsetType
Rate = Annotated[
    list[float], msgspec.Meta(min_length=2, max_length=2, description="per second, and at once")
]


class Frame(msgspec.Struct, kw_only=True, tag_field="type"):
    """Base class of all frames."""


class Reply(Frame, kw_only=True):
    """Base class of the replies to requests."""

    id: RequestId = UNSET


class User(msgspec.Struct):
    """The user of a connection."""

    id: str
    name: str


class Member(msgspec.Struct):
    """A member of a room."""

    id: str
    name: str
    state: dict[str, Any]
    verified: Literal[False] | UnsetType = UNSET


class Sender(msgspec.Struct):
    """The sender of a broadcast."""

    id: str
    name: str
    verified: bool


class Document(msgspec.Struct):
    """A document, or its id alone if it is too large, failed or left."""

    id: str
    data: dict[str, Any] | UnsetType = UNSET
    truncated: Literal[True] | UnsetType = UNSET
    error: Literal[True] | UnsetType = UNSET


class Reason(msgspec.Struct):
    """The reason for which missed events do not follow."""

    reason: str


class Limits(msgspec.Struct):
    """The limits of a connection."""

    message_bytes: int
    name_bytes: int
    state_bytes: int
    subscriptions: int
    rooms: int
    messages_rate: Rate
    subscribe_rate: Rate
    broadcast_rate: Rate


class Authenticated(Reply, tag="authenticated", kw_only=True):
    """The reply to `auth`."""

    connection: str
    user: User | None
    project: str
    expires_at: Time | None
    heartbeat: int
    protocol: int
    limits: Limits
    now: Time


class Subscribed(Reply, tag="subscribed", kw_only=True):
    """The reply to `subscribe`."""

    collection: str
    subscription: str
    filters: dict[str, Any]
    durable: bool
    cursor: str | UnsetType = UNSET
    scope: str
    resumed: bool | UnsetType = UNSET
    resync: Reason | UnsetType = UNSET


class Unsubscribed(Reply, tag="unsubscribed", kw_only=True):
    """The reply to `unsubscribe`, with the key that the request has."""

    collection: str | UnsetType = UNSET
    subscription: str | UnsetType = UNSET


class Joined(Reply, tag="joined", kw_only=True):
    """The reply to `join`."""

    room: str
    participants: int
    members: list[Member]
    title: str | UnsetType = UNSET
    more: Literal[True] | UnsetType = UNSET
    cursor: str | UnsetType = UNSET
    resumed: bool | UnsetType = UNSET
    resync: Reason | UnsetType = UNSET


class Left(Reply, tag="left", kw_only=True):
    """The reply to `leave`."""

    room: str


class StateSet(Reply, tag="state", kw_only=True):
    """The reply to `state`, if the request has an id."""

    room: str


class Sent(Reply, tag="sent", kw_only=True):
    """The reply to `broadcast`, if the request has an id."""

    room: str
    duplicate: Literal[True] | UnsetType = UNSET


class Pong(Reply, tag="pong"):
    """The reply to `ping`."""


class Error(Reply, tag="error", kw_only=True):
    """The refusal of a request, or the end of a subscription or of a membership."""

    code: ErrorCode
    message: str
    retry_after_ms: int | UnsetType = UNSET
    subscription: str | UnsetType = UNSET
    room: str | UnsetType = UNSET


class Closing(Frame, tag="closing", kw_only=True):
    """The last frame before the server closes the connection."""

    code: CloseCode
    reason: str
    retry_after_ms: int | None


class DocumentEvent(Frame, tag="event", kw_only=True):
    """A change of a document."""

    collection: str
    event: Literal["created", "updated", "deleted", "entered", "left"]
    document: Document
    changed: list[str] | UnsetType = UNSET
    subscriptions: list[str]
    transaction: str
    at: Time
    cursor: str | UnsetType = UNSET
    replayed: Literal[True] | UnsetType = UNSET
    truncated: Literal[True] | UnsetType = UNSET


class BroadcastEvent(Frame, tag="event", kw_only=True):
    """A message to a room, or to everyone in the project."""

    event: Literal["broadcast"]
    room: str
    message: Any
    sender: Sender | None
    at: Time
    cursor: str | UnsetType = UNSET
    replayed: Literal[True] | UnsetType = UNSET


class DirectEvent(Frame, tag="event", kw_only=True):
    """A message of the server to one user."""

    event: Literal["direct"]
    message: Any
    sender: None
    at: Time


class Presence(Frame, tag="presence", kw_only=True):
    """A change of the members of a room."""

    room: str
    event: Literal["joined", "left", "updated"]
    member: Member
    participants: int


class Members(Frame, tag="members", kw_only=True):
    """Further members of a room, which did not fit into `joined`."""

    room: str
    members: list[Member]
    more: bool


class SnapshotPage(Frame, tag="snapshot", kw_only=True):
    """A page of a snapshot."""

    subscription: str
    documents: list[Document]
    cursor: str | None
    more: bool
    truncated: Literal[True] | UnsetType = UNSET


class Cursor(Frame, tag="cursor", kw_only=True):
    """The new position of a subscription."""

    subscription: str
    cursor: str


class Moved(Frame, tag="moved", kw_only=True):
    """The documents that a change of rights shows and hides, or a part of them."""

    subscription: str
    entered: list[Document]
    left: list[str]
    cursor: str
    scope: str | UnsetType = UNSET
    more: bool


class ResyncRequest(Frame, tag="resync", kw_only=True):
    """The request to load the data of a subscription again."""

    subscription: str
    reason: ResyncReason
    scope: str
    cursor: str | UnsetType = UNSET


class WindowChange(Frame, tag="window", kw_only=True):
    """A change of a window, or a part of one."""

    subscription: str
    reset: Literal[True] | UnsetType = UNSET
    remove: list[str]
    # pairs of an index and a document
    insert: list[tuple[int, Document]]
    partial: Literal[True] | UnsetType = UNSET
    more: bool | UnsetType = UNSET
    next: str | UnsetType = UNSET
    cursor: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET


class Counted(msgspec.Struct):
    """A sum and the number of values in it, from which an average is computed."""

    sum: int | float | str | None
    n: int


class Group(msgspec.Struct):
    """A group of documents with its aggregates."""

    count: int
    key: dict[str, Any] | UnsetType = UNSET
    sum: dict[str, Any] | UnsetType = UNSET
    avg: dict[str, Counted] | UnsetType = UNSET
    min: dict[str, Any] | UnsetType = UNSET
    max: dict[str, Any] | UnsetType = UNSET


class AggregateChange(Frame, tag="aggregate", kw_only=True):
    """The groups of an aggregate that have changed, or a part of them."""

    subscription: str
    reset: Literal[True] | UnsetType = UNSET
    groups: list[Group]
    partial: Literal[True] | UnsetType = UNSET
    cursor: str | UnsetType = UNSET
    scope: str | UnsetType = UNSET


class Events(Frame, tag="events", kw_only=True):
    """Several events, for a client that accepts batches."""

    # events, and frames of live queries
    events: list[Any]


# all frames
FRAME_TYPES: tuple[type[Frame], ...] = (
    Authenticated,
    Subscribed,
    Unsubscribed,
    Joined,
    Left,
    StateSet,
    Sent,
    Pong,
    DocumentEvent,
    BroadcastEvent,
    DirectEvent,
    Events,
    Presence,
    Members,
    SnapshotPage,
    Cursor,
    Moved,
    ResyncRequest,
    WindowChange,
    AggregateChange,
    Error,
    Closing,
)
# types of the replies by the `type` of the request
REPLIES: dict[str, type[Reply]] = {
    "auth": Authenticated,
    "subscribe": Subscribed,
    "unsubscribe": Unsubscribed,
    "join": Joined,
    "leave": Left,
    "state": StateSet,
    "broadcast": Sent,
    "ping": Pong,
}

"""A subscription of a connection to a collection, with its request, permissions and progress."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from ..filters import Filter
from ..filters.order import BY_KEY, Order
from ..live_queries.queries import LiveQuery
from ..log.cursor import Position
from ..transport.connection import Connection
from ..transport.waiting_frames import FrameBuffer
from .cohort import Cohort, FrameSpec
from .query import ALL_EVENTS, AuthorizedQuery


@dataclass(frozen=True, slots=True)
class SnapshotQuery:
    """Which documents a snapshot contains, apart from the filter."""

    # number of documents
    limit: int
    order: Order = BY_KEY


@dataclass(frozen=True, slots=True)
class SubscriptionRequest:
    """The request of a client for a subscription."""

    # unique within the connection
    name: str
    # the collection's name as the client gave it, which may be a former one
    collection: str
    # events to deliver: created, updated, deleted
    events: frozenset[str] = ALL_EVENTS
    # whether an update after which a row begins or ceases to match is delivered as "entered" or
    # "left"
    transitions: bool = False
    # deliver an update only if one of these fields changed; None for all updates
    changed: frozenset[str] | None = None
    # the request as bytes, from which `query.rebuild_query` makes a new query
    serialized: bytes = b""
    # the name of the collection's stream; empty if it is ``collection``
    stream: str = ""
    # the snapshot that the client asked for, or None
    snapshot: SnapshotQuery | None = None
    # the window or aggregates that the client gets instead of events, or None
    live: LiveQuery | None = None


@dataclass(slots=True, eq=False)
class RightsChange:
    """A change of what a subscription may see, of which its client must be sent the difference."""

    # what the client was last sent documents by, with the keys of that time; None if that is not
    # known, or if other fields or row permissions apply now
    old: Filter | None
    # whether a part of the difference was sent
    is_started: bool = False


@dataclass(frozen=True, slots=True)
class CatchUpPlan:
    """The frames that must be sent to a subscription before it is live."""

    # the events after this position; None for the position of the topic at the start
    after: Position | None = None
    # a snapshot, which is sent before the events
    snapshot: SnapshotQuery | None = None
    # a change of its rights, which is sent before everything else
    rights_change: RightsChange | None = None


@dataclass(slots=True, eq=False)
class CatchUp:
    """The state of a subscription that is not live: because it catches up, or is suspended."""

    # what remains to be sent; updated while it is sent, so that it can be continued
    plan: CatchUpPlan | None = None
    # the task that sends it; None while the subscription is suspended
    task: asyncio.Task[None] | None = None
    # frames of events to send after a snapshot, if the collection has no log
    buffered: FrameBuffer | None = None


@dataclass(slots=True, eq=False)
class Subscription:
    """A subscription of one connection to one collection."""

    connection: Connection
    request: SubscriptionRequest

    # authorization

    # what the subscription may see
    query: AuthorizedQuery
    # `Connection.permissions_version` at the time when the query was made
    permissions_version: int = 0
    # the scope that the client was last sent; set when the subscription is attached
    scope: str = ""
    # whether it waits until the permissions of its connection have been evaluated
    is_suspended: bool = False
    # what its client was last sent documents by, with the keys of that time, while it waits for
    # its key sets to be read; None if that is not known
    shown: Filter | None = field(default=None, repr=False)

    # delivery

    # the cohort through which it gets events; None while it is not live
    cohort: Cohort[Subscription] | None = field(default=None, repr=False)
    # number of the last event that was delivered to it individually; for events delivered to all
    # members of the cohort, see `SubscriptionTable.last_seq`
    last_seq: int = 0
    # None while it is live
    catchup: CatchUp | None = None
    # the result of its live query that it was last sent, while it is not live; None if its client
    # must be sent the whole result
    sent: Any = field(default=None, repr=False)
    # whether its client waits for a frame with the result, even if that has not changed
    awaits_result: bool = True
    # numbers of events for which row permissions are not evaluated yet, oldest first
    pending_row_checks: deque[int] | None = None
    # whether it is in the `TopicManager`, that is, not unsubscribed or replaced
    is_attached: bool = False

    @property
    def name(self) -> str:
        """The name that the client gave to the subscription."""
        return self.request.name

    @property
    def collection(self) -> str:
        """The name of the collection, by which the client knows it."""
        return self.request.collection

    @property
    def stream(self) -> str:
        """The name of the collection's stream."""
        return self.request.stream or self.request.collection

    @property
    def frame_spec(self) -> FrameSpec:
        """The spec of frames that are for this subscription only."""
        request = self.request
        return FrameSpec(
            self.connection.dialect,
            request.collection,
            self.query.fields,
            (request.name,),
            request.events,
            request.transitions,
            request.changed,
        )

    @property
    def buffer(self) -> FrameBuffer | None:
        """Frames to send after a snapshot; None if frames are sent immediately."""
        return None if self.catchup is None else self.catchup.buffered


# a subscription that must get an event, and the event's name
Delivery = tuple[Subscription, str]

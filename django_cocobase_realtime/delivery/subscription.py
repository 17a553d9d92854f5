"""A subscription: what a client asked for, what it may see, and how far it has come."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field

from ..log.cursor import Position
from ..transport.connection import Connection
from .cohort import Cohort, FrameSpec
from .query import ALL_EVENTS, AuthorizedQuery


@dataclass(frozen=True, slots=True)
class SubscriptionRequest:
    """What the client asked for."""

    # unique within the connection
    name: str
    # the collection's name as the client gave it, which may be a former one
    collection: str
    # events to deliver: created, updated, deleted
    events: frozenset[str] = ALL_EVENTS
    # whether updates that cross the filter's border are delivered as entered and left
    transitions: bool = False
    # an update is delivered only if one of these fields changed; None for any
    changed: frozenset[str] | None = None
    # the request as sent, to authorize it again (see `query.rebuild_query`)
    serialized: bytes = b""
    # the name of the collection's stream; empty if it is ``collection``
    stream: str = ""


@dataclass(frozen=True, slots=True)
class SnapshotQuery:
    """Which documents a client wants first."""

    # number of documents
    limit: int
    # field to sort by, with a leading ``-`` for descending; None for the primary key
    order: str | None = None


@dataclass(frozen=True, slots=True)
class CatchUpPlan:
    """What a subscription still has to be sent before it is live."""

    # replay the log from here; None for the position of the topic when catching up starts
    after: Position | None = None
    # send these documents first
    snapshot: SnapshotQuery | None = None


@dataclass(slots=True, eq=False)
class CatchUp:
    """The state of a subscription that is not live (yet, or while it is authorized again)."""

    # what remains to be sent; kept up to date, so that the rest can be started again
    plan: CatchUpPlan | None = None
    # the task that sends it; None while the subscription is suspended
    task: asyncio.Task[None] | None = None
    # frames that must wait for the end of a snapshot, if the collection has no log
    buffered: list[str] | None = None


@dataclass(slots=True, eq=False)
class Subscription:
    """One connection's subscription to one collection."""

    connection: Connection
    request: SubscriptionRequest

    # authorization

    query: AuthorizedQuery
    # the connection's permissions_version for which ``query`` was determined
    permissions_version: int = 0

    # delivery

    # where events find it; None while it is not live
    cohort: Cohort[Subscription] | None = field(default=None, repr=False)
    # number of the last event delivered to it alone (see `SubscriptionTable.last_seq`)
    last_seq: int = 0
    # None once it is live
    catchup: CatchUp | None = None
    # numbers of events about which the row permission has not decided yet, oldest first
    pending_row_checks: deque[int] | None = None
    # False before `TopicManager.attach`, and after it was unsubscribed or replaced
    is_attached: bool = False

    @property
    def name(self) -> str:
        """The name by which the client knows it."""
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
        """What its frames look like if no other subscription shares them."""
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
    def buffer(self) -> list[str] | None:
        """Frames that wait for the end of a snapshot; None if frames are sent at once."""
        return None if self.catchup is None else self.catchup.buffered


Delivery = tuple[Subscription, str]
"""A subscription that must get an event, and the event's name."""

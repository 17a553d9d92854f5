"""Numbers of connections, subscriptions and results that a hub has, for `GET metrics`."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from ..log.cursor import Position
from .hub import Hub

# seconds that another event loop of this process has to answer
TIMEOUT = 1.0


@dataclass(slots=True)
class Measures:
    """Numbers of the hubs of this process, added up."""

    # authenticated connections
    connections: int = 0
    # memberships of rooms
    memberships: int = 0
    # rooms with a membership
    rooms: int = 0
    # bytes that wait for all connections, and for the one for which most do
    queue_bytes: int = 0
    largest_queue_bytes: int = 0
    # subscriptions by collection, and by kind: "events", "window", "aggregate"
    subscriptions: Counter[tuple[str, str]] = field(default_factory=Counter)
    # subscriptions that read a snapshot, a replay or a result, and are not live yet
    starting: int = 0
    # cohorts by collection
    cohorts: Counter[str] = field(default_factory=Counter)
    # windows and aggregates that are kept up to date, by collection and kind
    live_queries: Counter[tuple[str, str]] = field(default_factory=Counter)
    # the position in each stream, by alias of the database and name; the lowest of all hubs
    positions: dict[str, dict[str, Position]] = field(default_factory=dict)

    def add(self, hub: Hub) -> None:
        """Add the numbers of a hub, in its event loop."""
        self.connections += len(hub.connections)
        sizes = [connection.writer.waiting_bytes for connection in hub.connections.values()]
        self.queue_bytes += sum(sizes)
        self.largest_queue_bytes = max(self.largest_queue_bytes, *sizes, 0)
        self.rooms += len(hub.rooms.rooms)
        self.memberships += hub.rooms.membership_count
        live = 0
        for name, topic in hub.topics.topics.items():
            queries, subscriptions = topic.live_queries.count()
            subscriptions["events"] = topic.table.size
            live += subscriptions.total()
            for kind, number in subscriptions.items():
                self.subscriptions[name, kind] += number
            for kind, number in queries.items():
                self.live_queries[name, kind] += number
            self.cohorts[name] += topic.table.cohort_count
        self.starting += max(hub.topics.subscription_count - live, 0)
        for using, positions in hub.topics.positions().items():
            known = self.positions.setdefault(using, {})
            for stream, position in positions.items():
                if stream not in known or position.seq < known[stream].seq:
                    known[stream] = position


async def measure() -> Measures:
    """Return the numbers of all hubs of this process.

    The hub of another event loop that does not answer within `TIMEOUT` is left out.
    """
    measures = Measures()
    here = asyncio.get_running_loop()
    for loop, hub in Hub.all():
        if loop is here:
            measures.add(hub)
        elif loop.is_running():
            future = asyncio.run_coroutine_threadsafe(_add(measures, hub), loop)
            await asyncio.wait({asyncio.wrap_future(future)}, timeout=TIMEOUT)
    return measures


async def _add(measures: Measures, hub: Hub) -> None:
    measures.add(hub)

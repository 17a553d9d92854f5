"""The broker, which publishes events to other processes through the channel layer.

Delivery
    At most once. A channel layer may lose messages: it drops them if it is full, and Redis forgets
    groups if it is restarted. Events that must not be lost are also in the log.
Order
    Events that one process publishes to one group arrive in this order.
Cost
    `Broker.publish` appends to an *outbox* and returns. It does not wait for the channel layer,
    and never raises an exception.

Each process has one sender, which sends the events of the outbox. If the process has a hub, the
sender runs in the hub's event loop, because the in-memory layer works in that loop only.
Otherwise it runs in a daemon thread, with an event loop and a connection that it keeps, whereas
``async_to_sync`` would open both for each call.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - must register its exit hook before ours
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import NamedTuple
from weakref import WeakKeyDictionary

from ..events import (
    Broadcast,
    Change,
    DirectMessage,
    DisconnectRequested,
    Event,
    LogAppended,
    PermissionsChanged,
    PresenceChange,
    StatePart,
    StateRequested,
    encode,
)
from ..metrics import metrics
from ..utils.concurrency import spawn_task
from .lanes import Lanes
from .layer import (
    CONTROL_GROUP,
    MESSAGE_TYPE,
    ORIGIN,
    SEND_TIMEOUT,
    answer_group,
    channel_layer,
    collection_group,
    has_several_hosts,
    is_in_memory,
    room_group,
)
from .notifications import notify_listeners

logger = logging.getLogger(__name__)

# events that the outbox can hold if the layer does not answer; then the oldest are dropped
MAX_OUTBOX_EVENTS = 20_000
# bytes of payload in one message of the layer
MAX_MESSAGE_BYTES = 256 * 1024
# seconds that a process waits, before it exits, until its outbox is empty
EXIT_TIMEOUT = 5.0
# seconds between two warnings that the layer does not accept events
WARNING_INTERVAL = 10.0

# returns the function to call when the log of a collection has new events, or None
ListenerLookup = Callable[[str], "Callable[[], object] | None"]


class OutboxEntry(NamedTuple):
    """An encoded event that has not been sent yet."""

    # group of the channel layer to which it is sent
    group: str
    payload: bytes
    # set if the caller waits; its result is whether the layer accepted the event
    done: Future[bool] | None = None
    # whether this process must not receive the event, because its hub has delivered it already
    to_others: bool = False


class Broker:
    """Publishes events to groups. Each process has one, `broker`, which any thread may use."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        # name of this process, by which it recognizes its own messages
        self.origin = uuid.uuid4().hex
        # number of events that could not be sent
        self.dropped = 0
        # events to send, oldest first
        self._outbox: deque[OutboxEntry] = deque()
        # event loops with a hub, in the order in which they were attached
        self._loops: dict[asyncio.AbstractEventLoop, ListenerLookup] = {}
        self._lock = threading.Lock()
        # whether the sender runs, or an event loop was requested to start it
        self._draining = False
        # the event loop that was requested to start the sender, until it does
        self._drain_request: tuple[asyncio.AbstractEventLoop, object] | None = None
        # the event loop of the daemon thread
        self._thread_loop: asyncio.AbstractEventLoop | None = None
        # what is being sent to a layer with several hosts, by the event loop of the sender
        self._lanes: WeakKeyDictionary[asyncio.AbstractEventLoop, Lanes[list[OutboxEntry]]] = (
            WeakKeyDictionary()
        )
        # set while the outbox is empty and nothing is being sent
        self._idle = threading.Event()
        self._idle.set()
        # monotonic time of the last warning about the layer
        self._last_warning_at = 0.0

    # publishing

    def publish(self, event: Event) -> None:
        """Put an event into the outbox. Does not wait and never raises an exception."""
        try:
            self._enqueue(OutboxEntry(_group_for(event), encode(event)))
        except Exception:
            logger.exception("An event could not be published.")

    def publish_to_others(self, event: Event) -> None:
        """Publish an event that the hub of this process has delivered already."""
        if len(self._loops) == 1 and is_in_memory(channel_layer()):
            return  # there is no other process
        try:
            self._enqueue(OutboxEntry(_group_for(event), encode(event), to_others=True))
        except Exception:
            logger.exception("An event could not be published.")

    def notify(self, streams: Iterable[str], using: str) -> None:
        """Announce, after a commit in a database, that the logs of streams have new events.

        If a hub of this process follows a stream, only this hub is notified: it numbers the events
        and publishes them. Other processes are notified by PostgreSQL if they listen to it, and
        through the channel layer otherwise. Never raises an exception.
        """
        # payloads by stream; with its own name as payload, this process ignores the notification
        to_others: dict[str, str] = {}
        for stream in streams:
            if not self._notify_hubs(stream):
                to_others[stream] = ""
            elif _is_alone():
                # the hub cannot reach other processes, so they must read the log as well
                to_others[stream] = self.origin
        if not to_others or notify_listeners(using, to_others, _is_alone):
            return
        if self._loops or not _is_alone():
            for stream, payload in to_others.items():
                if not payload:
                    self.publish(LogAppended(stream))

    def _notify_hubs(self, stream: str) -> bool:
        """Notify the hubs of this process that follow a stream; return whether there is one."""
        notified = False
        for loop, get_listener in list(self._loops.items()):
            listener = get_listener(stream)
            if listener is not None:
                try:
                    loop.call_soon_threadsafe(listener)
                    notified = True
                except RuntimeError:  # the loop was closed without a detach
                    continue
        return notified

    async def send(self, event: Event, timeout: float = SEND_TIMEOUT) -> bool:
        """Publish an event; return whether the layer accepted it within ``timeout`` seconds."""
        done: Future[bool] = Future()
        self._enqueue(OutboxEntry(_group_for(event), encode(event), done))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(done), timeout)
        except TimeoutError:
            return False

    def _enqueue(self, entry: OutboxEntry) -> None:
        if len(self._outbox) >= MAX_OUTBOX_EVENTS:
            self.dropped += 1
            self._resolve([self._outbox.popleft()], False)
        self._outbox.append(entry)
        self._request_drain()

    # the sender

    def attach(
        self, loop: asyncio.AbstractEventLoop, get_listener: ListenerLookup | None = None
    ) -> None:
        """Register the event loop of a hub, so that the outbox is sent in this loop.

        ``get_listener`` returns the function with which `notify` notifies the hub of new events in
        the log of a collection, or None if the hub does not follow the collection.
        """
        with self._lock:
            self._loops[loop] = get_listener or (lambda collection: None)

    def detach(
        self, loop: asyncio.AbstractEventLoop, get_listener: ListenerLookup | None = None
    ) -> None:
        """Undo `attach`, unless the event loop was attached again with another listener."""
        with self._lock:
            if get_listener is not None and self._loops.get(loop) != get_listener:
                return
            self._loops.pop(loop, None)
            if self._drain_request is not None and self._drain_request[0] is loop:
                # the sender may never start in this loop; one that already runs continues
                self._drain_request, self._draining = None, False
        if self._outbox:
            self._request_drain()

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """Return the event loop of a hub, or that of the daemon thread if there is no hub.

        A core layer can receive in one event loop of a process only.
        """
        with self._lock:
            loops = [loop for loop in self._loops if loop.is_running()]
            return loops[-1] if loops else self._start_thread_loop()

    def _request_drain(self) -> None:
        with self._lock:
            if self._draining:
                return
            self._draining = True
            self._idle.clear()
            for loop in (*reversed(list(self._loops)), None):
                request = (loop or self._start_thread_loop(), object())
                self._drain_request = request
                try:
                    _call_soon(request[0])(self._start_drain, request)
                except RuntimeError:  # the loop was closed without a detach
                    continue
                return

    def _start_thread_loop(self) -> asyncio.AbstractEventLoop:
        if self._thread_loop is None:
            self._thread_loop = asyncio.new_event_loop()
            threading.Thread(
                target=self._thread_loop.run_forever, name="realtime-broker", daemon=True
            ).start()
        return self._thread_loop

    def _start_drain(self, request: object) -> None:
        with self._lock:
            if self._drain_request is not request:
                return  # another event loop was requested since
            self._drain_request = None
        spawn_task(self._drain())

    async def _drain(self) -> None:
        try:
            while True:
                batches = self._next_batches()
                if not batches:
                    with self._lock:
                        if not self._outbox:
                            self._draining = False
                            self._set_idle()
                            return
                    continue
                if has_several_hosts():
                    lanes = self._get_lanes()
                    for entries in batches:
                        await lanes.send(entries[0].group, entries)
                    continue
                for entries in batches:
                    self._resolve(entries, await self._group_send(entries))
        except BaseException:
            with self._lock:
                self._draining = False
            raise

    def _get_lanes(self) -> Lanes[list[OutboxEntry]]:
        loop = asyncio.get_running_loop()
        lanes = self._lanes.get(loop)
        if lanes is None:
            lanes = self._lanes[loop] = Lanes(self._group_send, self._resolve, self._set_idle)
        return lanes

    def _set_idle(self) -> None:
        if not self._draining and not self._outbox and not any(map(len, self._lanes.values())):
            self._idle.set()

    def _next_batches(self) -> list[list[OutboxEntry]]:
        """Take all events from the outbox, grouped into messages: by group, up to a size."""
        batches: list[list[OutboxEntry]] = []
        open_batches: dict[tuple[str, bool], tuple[list[OutboxEntry], int]] = {}
        while self._outbox:
            entry = self._outbox.popleft()
            if entry.done is not None and entry.done.cancelled():
                continue  # the caller of `send` has timed out and returned False
            key = entry.group, entry.to_others
            entries, size = open_batches.get(key, ([], 0))
            if not entries or size + len(entry.payload) > MAX_MESSAGE_BYTES:
                entries, size = [], 0
                batches.append(entries)
            entries.append(entry)
            open_batches[key] = (entries, size + len(entry.payload))
        return batches

    async def _group_send(self, entries: list[OutboxEntry]) -> bool:
        """Send entries of one group as one message; return whether the layer accepted it."""
        group, _, _, to_others = entries[0]
        payloads = [entry.payload for entry in entries]
        try:
            layer = channel_layer()
            if layer is None:
                return False
            message = {"type": MESSAGE_TYPE, "events": payloads}
            if to_others and len(self._loops) == 1:  # with several hubs here, the others need it
                message[ORIGIN] = self.origin
            async with asyncio.timeout(SEND_TIMEOUT):
                await layer.group_send(group, message)
        except Exception as error:
            self.dropped += len(payloads)
            metrics.layer_failures["send"] += 1
            if time.monotonic() - self._last_warning_at > WARNING_INTERVAL:
                self._last_warning_at = time.monotonic()
                logger.warning("The channel layer did not accept events: %r", error)
            return False
        return True

    def _resolve(self, entries: Iterable[OutboxEntry], sent: bool) -> None:
        for entry in entries:
            done = entry.done
            if done is not None and done.set_running_or_notify_cancel():
                done.set_result(sent)

    def flush(self, timeout: float = EXIT_TIMEOUT) -> bool:
        """Wait up to ``timeout`` seconds until the outbox is empty; return whether it is.

        Must not be called in an event loop.
        """
        return self._idle.wait(timeout)


# the broker of this process
broker = Broker()
os.register_at_fork(after_in_child=broker._reset)


def _flush_at_exit() -> None:
    # event loops of hubs have ended, so only the daemon thread can still send
    if broker._thread_loop is not None:
        broker.flush()


# This must run before the interpreter refuses new work in thread pools, which look up host names.
# concurrent.futures uses the same hook, and the hooks run in reverse order of registration.
getattr(threading, "_register_atexit", atexit.register)(_flush_at_exit)


def _call_soon(loop: asyncio.AbstractEventLoop) -> Callable[..., object]:
    """Return the method by which this thread calls functions in an event loop."""
    try:
        is_here = asyncio.get_running_loop() is loop
    except RuntimeError:
        is_here = False
    return loop.call_soon if is_here else loop.call_soon_threadsafe


def _is_alone() -> bool:
    """Return whether the channel layer does not reach other processes."""
    return is_in_memory(channel_layer())


def _group_for(event: Event) -> str:
    match event:
        case Change() | LogAppended():
            return collection_group(event.collection)
        case Broadcast() if event.is_for_all:
            return CONTROL_GROUP
        case Broadcast() | PresenceChange():
            return room_group(event.project, event.room)
        case StatePart():
            return answer_group(event.request)
        case DirectMessage() | DisconnectRequested() | PermissionsChanged() | StateRequested():
            return CONTROL_GROUP

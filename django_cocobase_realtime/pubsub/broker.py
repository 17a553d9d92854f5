"""The broker: with `layer`, the only place that touches the channel layer.

A channel layer is a lossy doorbell (it drops at capacity, forgets groups when Redis restarts),
so nothing here promises delivery: *at most once*, in the order in which one process published,
every event of a group whole. What is promised is that publishing costs the publisher nothing:
``publish`` takes a lock-free append, never waits for the layer and never raises.

One sender a process drains the outbox: on a hub's event loop where the process serves sockets
(the in-memory layer works in that loop alone), else on one daemon thread with a loop and a
connection of its own, since ``async_to_sync`` would make a loop and a connection for each send.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures.thread  # noqa: F401 - hooks in before us
import logging
import os
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import NamedTuple

from ..events import (
    Broadcast,
    Change,
    DirectMessage,
    DisconnectRequested,
    Event,
    LogAppended,
    PermissionsChanged,
    PresenceChange,
    encode,
)
from ..utils.concurrency import spawn_task
from .layer import MESSAGE_TYPE, ORIGIN, SEND_TIMEOUT, channel_layer, is_in_memory
from .names import CONTROL_GROUP, collection_group, room_group

logger = logging.getLogger(__name__)

MAX_OUTBOX_EVENTS = 20_000  # events that may wait for a layer that does not answer
MAX_MESSAGE_BYTES = 256 * 1024  # of one layer message
EXIT_TIMEOUT = 5.0  # seconds a process that ends waits for its outbox

ListenerLookup = Callable[[str], "Callable[[], object] | None"]


class OutboxEntry(NamedTuple):
    """What waits to be sent. ``elsewhere``: to other processes alone."""

    group: str
    payload: bytes
    done: Future[bool] | None = None
    to_others: bool = False


class Broker:
    """Publishes events to groups. One a process (``broker``); safe from any thread."""

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self.origin = uuid.uuid4().hex  # of messages that this process need not hear itself
        self._outbox: deque[OutboxEntry] = deque()
        self._loops: dict[asyncio.AbstractEventLoop, ListenerLookup] = {}
        self._lock = threading.Lock()
        self._draining = False
        self._drain_request: tuple[asyncio.AbstractEventLoop, object] | None = (
            None  # to begin a drain
        )
        self._thread_loop: asyncio.AbstractEventLoop | None = None
        self._idle = threading.Event()
        self._idle.set()
        self._last_warning_at = 0.0
        self.dropped = 0

    # what events there are, and where they go

    def publish(self, event: Event) -> None:
        """Send to the event's group, soon; returns at once and never raises."""
        try:
            self._enqueue(OutboxEntry(_group_for(event), encode(event)))
        except Exception:
            logger.exception("An event could not be published.")

    def publish_to_others(self, event: Event) -> None:
        """Like ``publish``, for what this process's hub has delivered already."""
        if len(self._loops) == 1 and is_in_memory(channel_layer()):
            return  # there is no other process to tell
        try:
            self._enqueue(OutboxEntry(_group_for(event), encode(event), to_others=True))
        except Exception:
            logger.exception("An event could not be published.")

    def notify(self, collection: str) -> None:
        """A collection's log has something new. Returns at once and never raises.

        A hub of this process that follows the collection numbers it and tells the others; without
        one, the bell goes to the processes that do.
        """
        rung = False
        for loop, hears in list(self._loops.items()):
            wake = hears(collection)
            if wake is not None:
                try:
                    loop.call_soon_threadsafe(wake)
                    rung = True
                except RuntimeError:  # closed without a word
                    continue
        if not rung and (self._loops or not is_in_memory(channel_layer())):
            self.publish(LogAppended(collection))

    async def send(self, event: Event, timeout: float = SEND_TIMEOUT) -> bool:
        """Like ``publish``, but tells whether the layer took it within ``timeout`` seconds."""
        done: Future[bool] = Future()
        self._enqueue(OutboxEntry(_group_for(event), encode(event), done))
        try:
            return await asyncio.wait_for(asyncio.wrap_future(done), timeout)
        except TimeoutError:
            return False

    def _enqueue(self, item: OutboxEntry) -> None:
        if len(self._outbox) >= MAX_OUTBOX_EVENTS:
            self.dropped += 1
            self._resolve([self._outbox.popleft()], False)
        self._outbox.append(item)
        self._request_drain()

    # who sends

    def attach(
        self, loop: asyncio.AbstractEventLoop, get_listener: ListenerLookup | None = None
    ) -> None:
        """A hub runs in this loop now: send from there, and ring there first.

        ``hears`` gives, for a collection, what to call in that loop; None for one that nobody
        there listens to.
        """
        with self._lock:
            self._loops[loop] = get_listener or (lambda collection: None)

    def detach(
        self, loop: asyncio.AbstractEventLoop, get_listener: ListenerLookup | None = None
    ) -> None:
        """The hub of this loop, with this ``hears``, is gone; another one may have followed it."""
        with self._lock:
            if get_listener is not None and self._loops.get(loop) != get_listener:
                return
            self._loops.pop(loop, None)
            if self._drain_request is not None and self._drain_request[0] is loop:
                # a drain that this loop was asked for may never run; one that runs goes on
                self._drain_request, self._draining = None, False
        if self._outbox:
            self._request_drain()

    def _request_drain(self) -> None:
        with self._lock:
            if self._draining:
                return
            self._draining = True
            self._idle.clear()
            for loop in (*reversed(list(self._loops)), None):
                self._drain_request = asked = (loop or self._start_thread_loop(), object())
                try:
                    asked[0].call_soon_threadsafe(self._start_drain, asked)
                except RuntimeError:  # closed without a word
                    continue
                return

    def _start_thread_loop(self) -> asyncio.AbstractEventLoop:
        if self._thread_loop is None:
            self._thread_loop = asyncio.new_event_loop()
            threading.Thread(
                target=self._thread_loop.run_forever, name="realtime-broker", daemon=True
            ).start()
        return self._thread_loop

    def _start_drain(self, asked: object) -> None:
        with self._lock:
            if self._drain_request is not asked:
                return  # another one was asked meanwhile
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
                            self._idle.set()
                            return
                    continue
                for items in batches:
                    self._resolve(items, await self._group_send(items))
        except BaseException:
            with self._lock:
                self._draining = False
            raise

    def _next_batches(self) -> list[list[OutboxEntry]]:
        """What waits, in order, neighbours and others of one group together up to a size."""
        batches: list[list[OutboxEntry]] = []
        open_batches: dict[tuple[str, bool], tuple[list[OutboxEntry], int]] = {}
        while self._outbox:
            item = self._outbox.popleft()
            if item.done is not None and item.done.cancelled():
                continue  # whoever sent it was told that it failed
            key = item.group, item.to_others
            items, size = open_batches.get(key, ([], 0))
            if not items or size + len(item.payload) > MAX_MESSAGE_BYTES:
                items, size = [], 0
                batches.append(items)
            items.append(item)
            open_batches[key] = (items, size + len(item.payload))
        return batches

    async def _group_send(self, items: list[OutboxEntry]) -> bool:
        """One message for items of one group."""
        group, _, _, elsewhere = items[0]
        payloads = [item.payload for item in items]
        try:
            layer = channel_layer()
            if layer is None:
                return False
            message = {"type": MESSAGE_TYPE, "events": payloads}
            if elsewhere and len(self._loops) == 1:  # else another hub of this process needs it
                message[ORIGIN] = self.origin
            async with asyncio.timeout(SEND_TIMEOUT):
                await layer.group_send(group, message)
        except Exception as error:
            self.dropped += len(payloads)
            if time.monotonic() - self._last_warning_at > 10:
                self._last_warning_at = time.monotonic()
                logger.warning("The channel layer took no events: %r", error)
            return False
        return True

    def _resolve(self, items: Iterable[OutboxEntry], sent: bool) -> None:
        for item in items:
            done = item.done
            if done is not None and done.set_running_or_notify_cancel():
                done.set_result(sent)

    def flush(self, timeout: float = EXIT_TIMEOUT) -> bool:
        """Wait until the outbox is empty, ``timeout`` seconds at most. Not for event loops."""
        return self._idle.wait(timeout)


broker = Broker()
os.register_at_fork(after_in_child=broker._reset)


def _flush_at_exit() -> None:
    # a hub's loop no longer runs by now: only the thread can still send
    if broker._thread_loop is not None:
        broker.flush()


# Before the interpreter forbids new work to thread pools, in which host names are looked up:
# concurrent.futures hooks in at the same place, and what hooks in later runs earlier.
getattr(threading, "_register_atexit", atexit.register)(_flush_at_exit)


def _group_for(event: Event) -> str:
    match event:
        case Change() | LogAppended():
            return collection_group(event.collection)
        case Broadcast() if event.is_for_all:
            return CONTROL_GROUP
        case Broadcast() | PresenceChange():
            return room_group(event.project, event.room)
        case DirectMessage() | DisconnectRequested() | PermissionsChanged():
            return CONTROL_GROUP

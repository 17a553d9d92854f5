"""Test helpers for projects that use the app, and a pytest plugin.

``pytest_plugins = ["django_cocobase_realtime.testing"]`` provides the fixture ``realtime``::

    async def test_a_post_arrives(realtime, transactional_db):
        async with realtime(user=user) as client:
            await client.subscribe("posts", filters={"status": "published"})
            await Post.objects.acreate(title="Hi", status="published")
            event = await client.receive("event")
            assert event["document"]["data"]["title"] == "Hi"

Events are sent after a commit, so tests that save rows and expect events need
``transactional_db`` or ``TransactionTestCase``.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from typing import Any, cast

import msgpack
from channels.layers import InMemoryChannelLayer
from channels.testing import WebsocketCommunicator
from django.db import connections
from msgspec.structs import replace

from .capture.recorder import observers, statement_observers, uncommitted_observers
from .capture.triggers.observation import TriggerLog
from .declarations.dependency_table import is_hidden
from .declarations.registry import UnknownCollection, registry
from .declarations.related_values import with_related
from .events import Change, Event, LogAppended
from .pubsub.broker import broker
from .routing import realtime_application

TIMEOUT = 5.0  # seconds to wait for a frame or for the connection


class RealtimeClient:
    """A client that is connected to the application in this process, without a server.

    It sends and receives frames as dictionaries.
    """

    def __init__(self, communicator: WebsocketCommunicator) -> None:
        self._communicator = communicator

    async def send(self, frame: dict[str, Any] | str) -> None:
        """Send a frame, or any text."""
        text = frame if isinstance(frame, str) else json.dumps(frame)
        await self._communicator.send_to(text_data=text)

    async def receive(self, type: str | None = None, timeout: float = TIMEOUT) -> dict[str, Any]:
        """Return the next frame.

        Raises ``AssertionError`` if it has another type, and ``TimeoutError`` after ``timeout``
        seconds.
        """
        frame: dict[str, Any] = json.loads(await self._communicator.receive_from(timeout))
        assert type is None or frame["type"] == type, frame
        return frame

    async def request(self, frame: dict[str, Any]) -> dict[str, Any]:
        """Send a frame, and return the next frame."""
        await self.send(frame)
        return await self.receive()

    async def subscribe(self, collection: str, **options: Any) -> dict[str, Any]:
        """Subscribe to a collection, and return the ``subscribed`` reply."""
        await self.send({"type": "subscribe", "collection": collection, **options})
        return await self.receive("subscribed")

    async def join(self, room: str, **options: Any) -> dict[str, Any]:
        """Join a room, and return the ``joined`` reply."""
        await self.send({"type": "join", "room": room, **options})
        return await self.receive("joined")

    async def receive_nothing(self, seconds: float = 0.1) -> bool:
        """Return whether no frame comes within ``seconds``."""
        nothing: bool = await self._communicator.receive_nothing(seconds, seconds / 10)
        return nothing

    async def closed(self, timeout: float = TIMEOUT) -> int:
        """Wait until the server closes the connection, and return the close code.

        Frames that arrive before are dropped.
        """
        while True:
            message = await self._communicator.receive_output(timeout)
            if message["type"] == "websocket.close":
                return int(message.get("code", 1000))


@asynccontextmanager
async def connect(
    *,
    user: Any = None,
    token: str | None = None,
    authenticate: bool = True,
    application: Any = None,
    path: str = "/realtime",
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> AsyncIterator[RealtimeClient]:
    """Connect a client, and disconnect it at the end of the block.

    It authenticates as ``user``, like a visitor who is logged in, or with ``token``; not at all
    if ``authenticate`` is False. ``application`` is the ASGI application, by default
    ``realtime_application()``.
    """
    communicator = WebsocketCommunicator(
        application or realtime_application(), path, [*headers, *_origin(user)]
    )
    if user is not None:
        cast("dict[str, Any]", communicator.scope)["user"] = user
    connected, _ = await communicator.connect(TIMEOUT)
    assert connected, "The connection was refused."
    client = RealtimeClient(communicator)
    if authenticate:
        await client.send({"type": "auth", **({} if token is None else {"token": token})})
        await client.receive("authenticated")
    try:
        yield client
    finally:
        await communicator.disconnect(timeout=TIMEOUT)


def _origin(user: Any) -> list[tuple[bytes, bytes]]:
    # the session is used only if a page of this site opened the connection
    if user is None:
        return []
    return [(b"origin", b"http://testserver"), (b"host", b"testserver")]


class CapturedEvents(list[Event]):
    """The events that `capture_events` collects.

    If it is empty because the test does not commit, reading it after the block raises
    ``RuntimeError``: a test that expects no event would pass for the wrong reason.
    """

    # why the list is empty; None if it may be
    _problem: str | None = None
    # adds the changes that triggers logged; None after the block
    _read_log: Callable[[], None] | None = None

    def read_log_by(self, read: Callable[[], None] | None) -> None:
        """Call ``read`` whenever the list is read."""
        self._read_log = read

    def expect_commit(self, count: int) -> None:
        """Raise from now on if the list is read while it is empty. ``count``: recorded changes."""
        recorded = f"{count} {'change was' if count == 1 else 'changes were'} recorded"
        self._problem = (
            f"There are no events, because their transaction is not committed ({recorded}). "
            "In a TestCase, put the code into "
            "`with self.captureOnCommitCallbacks(execute=True):`, with pytest into "
            "`with django_capture_on_commit_callbacks(execute=True):`, inside of "
            "capture_events(). Or use TransactionTestCase, or transaction=True."
        )

    def remove_change(self, change: Change) -> None:
        """Remove a change of a transaction that was rolled back."""
        kept = [event for event in list.__iter__(self) if getattr(event, "id", None) != change.id]
        list.__setitem__(self, slice(None), kept)

    def _check(self) -> None:
        if self._read_log is not None:
            self._read_log()
        if self._problem is not None and not list.__len__(self):
            raise RuntimeError(self._problem)

    def __len__(self) -> int:
        self._check()
        return super().__len__()

    def __iter__(self) -> Iterator[Event]:
        self._check()
        return super().__iter__()

    def __getitem__(self, index: Any) -> Any:
        self._check()
        return super().__getitem__(index)

    def __contains__(self, event: object) -> bool:
        self._check()
        return super().__contains__(event)

    def __eq__(self, other: object) -> bool:
        self._check()
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        self._check()
        return super().__ne__(other)


@contextmanager
def capture_events() -> Iterator[CapturedEvents]:
    """Collect the events that are published within the block, in order.

    A change is in the list once its transaction is committed. No client needs to be subscribed.
    In a ``TestCase``, which commits nothing, use ``captureOnCommitCallbacks(execute=True)`` inside
    of it; without that, reading the empty list raises ``RuntimeError``.

    Changes that triggers log are in the list as soon as they are written, and are removed if their
    transaction is rolled back: the list is read from the log.
    """
    events = CapturedEvents()
    read_log = TriggerLog(
        lambda change: events.append(_as_clients_see(change)), events.remove_change
    ).read
    recorded: list[Change] = []
    hooks_before = _commit_hooks()
    publish, send = broker.publish, broker.send

    def add(event: Event) -> None:
        read_log()
        if isinstance(event, Change) and is_hidden(event.collection):
            return  # of a table that a collection depends on: no event is published
        events.append(_as_clients_see(event))

    def collect_and_publish(event: Event) -> None:
        # a numbered change was collected when it was committed
        if not isinstance(event, LogAppended) and getattr(event, "seq", None) is None:
            add(event)
        publish(event)

    async def collect_and_send(event: Event, *args: Any) -> bool:
        read_log()
        events.append(event)
        return await send(event, *args)

    note = recorded.append
    observers.append(add)
    uncommitted_observers.append(note)
    statement_observers.append(read_log)
    events.read_log_by(read_log)
    broker.publish = collect_and_publish  # type: ignore[method-assign]
    broker.send = collect_and_send  # type: ignore[assignment]
    try:
        yield events
    finally:
        read_log()
        events.read_log_by(None)
        _remove(observers, add)
        _remove(uncommitted_observers, note)
        _remove(statement_observers, read_log)
        del broker.publish, broker.send
        # hooks that were registered in a savepoint are gone if it was rolled back
        if any(hook not in hooks_before for hook in _commit_hooks()):
            events.expect_commit(len(recorded))


def _as_clients_see(event: Event) -> Event:
    """Return a change with values and with the name of the collection as clients get them."""
    if isinstance(event, Change):
        with suppress(UnknownCollection):
            collection = registry.get(event.collection)
            (change,) = with_related(collection, [collection.decode(event)])
            return replace(change, collection=collection.name)
    return event


def _commit_hooks() -> list[Any]:
    """Return what this app will call on the commit of transactions that are open now."""
    hooks = [
        entry[1]
        for connection in connections.all(initialized_only=True)
        for entry in connection.run_on_commit
    ]
    return [
        hook for hook in hooks if str(getattr(hook, "__module__", "")).startswith(f"{__package__}.")
    ]


def _remove(callbacks: list[Any], callback: Any) -> None:
    """Remove a callback by identity: methods of equal lists are equal."""
    callbacks[:] = [other for other in callbacks if other is not callback]


class LossyChannelLayer(InMemoryChannelLayer):
    """An in-memory channel layer that loses and reorders messages, as real ones may do.

    ``loss`` and ``reorder`` are the probabilities, from 0 to 1, that a message is lost, or delayed
    so that later ones overtake it. The same ``seed`` gives the same losses. Messages are encoded
    and decoded with msgpack, as by channels_redis.
    """

    def __init__(
        self, loss: float = 0.0, reorder: float = 0.0, seed: int = 0, **config: Any
    ) -> None:
        super().__init__(**config)
        # probability that a message is lost
        self.loss = loss
        # probability that a message is delayed
        self.reorder = reorder
        self._random = random.Random(seed)  # noqa: S311 - no secret

    async def group_send(self, group: str, message: dict[str, Any]) -> None:
        """Send a message, unless it is lost."""
        message = msgpack.unpackb(msgpack.packb(message))
        if self._random.random() < self.loss:
            return
        if self._random.random() < self.reorder:
            await asyncio.sleep(self._random.random() / 50)
        await super().group_send(group, message)


with suppress(ImportError):  # projects that use Django's test runner may not have pytest
    import pytest

    @pytest.fixture
    def realtime() -> Callable[..., AbstractAsyncContextManager[RealtimeClient]]:
        """Return the function `connect`, as a pytest fixture."""
        return connect

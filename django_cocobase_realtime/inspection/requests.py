"""Requests to all server processes to describe their state."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

import msgspec

from ..events import StatePart, StateRequested, decode
from ..hub.hub import Hub
from ..pubsub.broker import broker
from ..pubsub.layer import CONTROL_GROUP, LayerChannel, answer_group, channel_layer, is_in_memory
from ..pubsub.members import count_members
from ..utils.concurrency import spawn_task
from .answers import describe

T = TypeVar("T")

logger = logging.getLogger(__name__)

# seconds to wait for the answers of other processes
DEFAULT_TIMEOUT = 1.0
# seconds to wait until the channel of the answers is released, which continues after that
RELEASE_TIMEOUT = 0.5


async def request_all(subject: str, kind: type[T], timeout: float = DEFAULT_TIMEOUT) -> list[T]:
    """Return the descriptions of all processes for a subject, as objects of a class.

    Returns when all processes have answered, or after ``timeout`` seconds with those that have.
    If the channel layer does not reach other processes, only this one is described.
    """
    own, others = await asyncio.gather(
        _describe_own(subject, timeout), _ask_others(subject, kind, timeout)
    )
    return own + others


async def _describe_own(subject: str, timeout: float) -> list[Any]:
    """Return the descriptions of the hubs of this process, also in other event loops."""
    running, items = asyncio.get_running_loop(), []
    for loop, hub in Hub.all():
        if loop is running:
            items += await describe(hub, subject)
        elif loop.is_running():
            with suppress(TimeoutError):  # the loop is blocked, or has ended
                items += await asyncio.wait_for(_run_in(loop, describe(hub, subject)), timeout)
    return items


async def _ask_others(subject: str, kind: type[T], timeout: float) -> list[T]:
    """Return the descriptions of other processes."""
    layer = channel_layer()
    if layer is None or is_in_memory(layer):
        return []
    collecting, loop = _Answers(subject, kind).collect(timeout), broker.event_loop()
    if loop is asyncio.get_running_loop():
        return await collecting
    return await _run_in(loop, collecting)


def _run_in(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, T]
) -> asyncio.Future[T]:
    """Run a coroutine in another event loop."""
    return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, loop))


class _Answers(Generic[T]):
    """The answers of other processes to one request."""

    def __init__(self, subject: str, kind: type[T]) -> None:
        self._request = StateRequested(uuid.uuid4().hex, subject, broker.origin)
        self._items: list[T] = []
        # their class
        self._kind = kind
        # names of the hubs whose answers are complete
        self._complete: set[str] = set()
        # number of hubs that must answer; None if it is not known
        self._expected: int | None = None
        # set when all have answered, or nothing more can be received
        self._ended = asyncio.Event()

    async def collect(self, timeout: float) -> list[T]:
        """Return the descriptions that arrive until all have answered or the time has passed."""
        try:
            async with asyncio.timeout(timeout):
                await self._collect()
        except TimeoutError:
            if self._expected is not None:
                logger.warning(
                    "%d of %d other processes have described their %s within %g seconds.",
                    len(self._complete),
                    self._expected,
                    self._request.subject,
                    timeout,
                )
        except Exception as error:
            logger.warning("Other processes could not be asked: %r", error)
        return self._items

    async def _collect(self) -> None:
        group, channel = answer_group(self._request.id), await LayerChannel.open()
        if channel is None:
            return
        # a task, since the layer releases a channel when a task is cancelled that receives
        receiving = asyncio.create_task(self._receive(channel))
        try:
            await channel.join(group)
            own = sum(hub.groups.has_joined(CONTROL_GROUP) for _, hub in Hub.all())
            members = await count_members(CONTROL_GROUP)
            self._expected = None if members is None else max(members - own, 0)
            if self._expected != 0:
                broker.publish(self._request)
                await self._ended.wait()
                if receiving.done():
                    receiving.result()  # raises the exception of the layer
        finally:
            releasing = spawn_task(_release(channel, group, receiving))
            await asyncio.wait({releasing}, timeout=RELEASE_TIMEOUT)

    async def _receive(self, channel: LayerChannel) -> None:
        try:
            while True:
                for payload in await channel.receive():
                    self._add(payload)
        finally:
            self._ended.set()

    def _add(self, payload: bytes) -> None:
        event = decode(payload)
        if isinstance(event, StatePart) and event.request == self._request.id:
            try:
                self._items += msgspec.convert(event.items, list[self._kind])  # type: ignore[name-defined]
            except msgspec.ValidationError as error:  # another version of this app
                logger.warning("An answer of another process was ignored: %s", error)
            if event.is_last:
                self._complete.add(event.hub)
            if self._expected is not None and len(self._complete) >= self._expected:
                self._ended.set()


async def _release(channel: LayerChannel, group: str, receiving: asyncio.Task[None]) -> None:
    """Leave the group, and stop receiving."""
    try:
        await channel.leave(group)
    except Exception as error:
        logger.debug("A group could not be left; its membership will expire: %r", error)
    await channel.stop_receiving(receiving)

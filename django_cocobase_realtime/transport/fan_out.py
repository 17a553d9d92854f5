"""Sending of one frame to many sockets, and of several events in one frame.

`fan_out` is the most performance-critical function. One coroutine awaits the ``send`` of one
socket after the other. As long as none of them waits, this needs no exception, task or future. If
one waits, the coroutine becomes a task for this socket, and another coroutine continues with the
remaining ones, so that a slow client does not delay others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from operator import length_hint
from typing import Any

from ..wire import frames
from .writer import Writer


def fan_out(writers: list[Writer], text: str, cursor: str | None) -> None:
    """Send an event to each writer, in order, without waiting. Never raises an exception."""
    remaining = iter(writers)
    while True:
        sending: Any = _send_to_each(remaining, text, cursor)
        try:
            yielded = sending.send(None)
        except StopIteration:
            return
        except Exception as error:
            _current(writers, remaining).fail(error)
        else:
            # when this coroutine continues, the iterator is exhausted, so it only ends this send
            _current(writers, remaining).resume_in_task(sending, yielded)


def _current(writers: list[Writer], remaining: Iterator[Writer]) -> Writer:
    """Return the writer that the iterator yielded last."""
    return writers[len(writers) - length_hint(remaining) - 1]


async def _send_to_each(remaining: Iterator[Writer], text: str, cursor: str | None) -> None:
    for writer in remaining:
        if writer.can_send_inline:
            await writer.send({"type": "websocket.send", "text": text})
        else:
            writer.push_event(text, cursor)


class FrameBatcher:
    """Joins events of one iteration of the event loop into a frame, for clients that accept that.

    If many events come at once, most of the cost is per frame: a system call, and work of the
    server. Each hub has one batcher.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # writers whose batch is flushed at the end of this iteration
        self._scheduled: list[Writer] = []
        # the events that were joined last and their frame, since many writers have the same events
        self._last: tuple[list[str], str] = ([], "")

    def schedule(self, writer: Writer) -> None:
        """Flush the writer's batch at the end of this iteration of the loop."""
        self._scheduled.append(writer)
        if len(self._scheduled) == 1:
            self._loop.call_soon(self._flush)

    def join(self, events: list[str]) -> str:
        """Return one frame that contains these events. A single event is already a frame."""
        if len(events) == 1:
            return events[0]
        last_events, text = self._last
        if last_events != events:  # fast, because they mostly are the same string objects
            text = frames.join_events(events)
            self._last = (events, text)
        return text

    def _flush(self) -> None:
        scheduled, self._scheduled = self._scheduled, []
        for writer in scheduled:
            writer.flush_batch()
        self._last = ([], "")

"""One frame to many sockets, and several events in one frame.

`fan_out` is the hot loop. One coroutine awaits each server's ``send`` in turn; as long as none of
them waits, that costs no exception, task or future. When one does wait, it keeps the coroutine as
a task of its own, and another coroutine continues with the remaining sockets, so a slow client
delays no other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from operator import length_hint
from typing import Any

from ..wire import frames
from .writer import Writer


def fan_out(writers: list[Writer], text: str, cursor: str | None) -> None:
    """Send an event to each writer, in order. Never waits, never raises."""
    remaining = iter(writers)
    while True:
        sending: Any = _send_to_each(remaining, text, cursor)
        try:
            yielded = sending.send(None)
        except StopIteration:
            return
        except Exception:
            _current(writers, remaining).mark_lost()
        else:
            # when this coroutine resumes, the iterator is exhausted: it only finishes its own send
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
    """Joins the events of one loop iteration into one frame, for clients that asked for batches.

    In a burst, most of the cost of a delivery is the frame, the system call and the server's
    bookkeeping; events of one iteration share them. One per hub.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._scheduled: list[Writer] = []
        # the last joined events and their frame: many writers have the same events
        self._last: tuple[list[str], str] = ([], "")

    def schedule(self, writer: Writer) -> None:
        """Flush the writer's batch at the end of this iteration of the loop."""
        self._scheduled.append(writer)
        if len(self._scheduled) == 1:
            self._loop.call_soon(self._flush)

    def join(self, events: list[str]) -> str:
        """Return one frame that contains these events; a single event is a frame already."""
        if len(events) == 1:
            return events[0]
        last_events, text = self._last
        if last_events != events:  # usually the same string objects: compared by identity first
            text = frames.join_events(events)
            self._last = (events, text)
        return text

    def _flush(self) -> None:
        scheduled, self._scheduled = self._scheduled, []
        for writer in scheduled:
            writer.flush_batch()
        self._last = ([], "")

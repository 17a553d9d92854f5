"""One frame to many writers: the hot loop.

One coroutine awaits each server's ``send`` in turn, which costs no exception, task or future as
long as none of them waits. The one that does keeps that coroutine, as a task of its own, and
another one goes on with the rest: a slow client holds nobody up.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import length_hint
from typing import Any

from .writer import Writer


def fan_out(writers: list[Writer], text: str, cursor: str | None) -> None:
    """Push an event to each writer, in order. Never waits, never raises."""
    left = iter(writers)
    while True:
        run: Any = _send_to_each(left, text, cursor)
        try:
            waiting = run.send(None)
        except StopIteration:
            return
        except Exception:
            _current(writers, left).mark_lost()
        else:
            # when it goes on, this loop has left nothing for it but its own send
            _current(writers, left).resume_in_task(run, waiting)


def _current(writers: list[Writer], left: Iterator[Writer]) -> Writer:
    return writers[len(writers) - length_hint(left) - 1]


async def _send_to_each(left: Iterator[Writer], text: str, cursor: str | None) -> None:
    for writer in left:
        if writer.can_send_inline:
            await writer.send({"type": "websocket.send", "text": text})
        else:
            writer.push_event(text, cursor)

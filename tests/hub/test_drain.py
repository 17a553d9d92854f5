"""How a drain closes sockets, and when it calls the server's handler."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
import time
from dataclasses import replace

import pytest

from django_cocobase_realtime.hub import drain as drain_module
from django_cocobase_realtime.hub.drain import RETRY_AFTER_MS, Drain


@pytest.fixture
def stopped():
    """Set a handler of SIGTERM like that of a server; return the times at which it is called."""
    before, times = signal.getsignal(signal.SIGTERM), []
    signal.signal(signal.SIGTERM, lambda number, frame: times.append(time.monotonic()))
    yield times
    signal.signal(signal.SIGTERM, before)


class Sockets:
    """Sockets of a drain, which close when they are asked to, or never."""

    def __init__(self, drain):
        self.drain = drain
        # times at which they were closed
        self.closed = []
        # how many were asked to drop the connection
        self.dropped = 0

    def open(self, count, *, stalled=False):
        for _ in range(count):
            self._open(stalled)

    def _open(self, stalled):
        def close(retry_after_ms):
            if retry_after_ms is None:
                self.dropped += 1
                return
            assert retry_after_ms == RETRY_AFTER_MS
            self.closed.append(time.monotonic())
            if not stalled:
                self.drain.remove(close)

        self.drain.add(close)


async def terminate(drain, stopped, signals=2):
    """Send SIGTERM, and return the seconds until the server's handler is called."""
    began = time.monotonic()
    for _ in range(signals):
        os.kill(os.getpid(), signal.SIGTERM)
    assert drain.is_draining
    async with asyncio.timeout(5):
        while not stopped:
            await asyncio.sleep(0.005)
    return stopped[0] - began


async def test_sockets_are_closed_evenly(stopped, settings, caplog):
    settings.COCOBASE_REALTIME = {"DRAIN": 1}
    drain = Drain()
    sockets = Sockets(drain)
    sockets.open(500)
    caplog.set_level(logging.INFO)
    began = time.monotonic()
    assert 0.6 < await terminate(drain, stopped) < 1.4
    assert len(sockets.closed) == 500
    # a busy machine may delay some of them
    tenths = [int((at - began) * 10 / 0.75) for at in sockets.closed]
    assert len(set(tenths)) >= 4, tenths
    assert max(map(tenths.count, tenths)) < 350, tenths
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "Draining: 500 connections are closed within 1 seconds."
    assert messages[1].startswith("Drained: 500 connections were closed in ")
    await asyncio.sleep(0.05)
    assert len(stopped) == 1


@pytest.mark.parametrize(("count", "seconds"), [(0, 0), (1, 0), (3, 0.5)])
async def test_few_sockets_take_little_time(stopped, settings, count, seconds):
    settings.COCOBASE_REALTIME = {"DRAIN": 60}
    drain = Drain()
    Sockets(drain).open(1)
    drain._sockets.clear()
    Sockets(drain).open(count)
    assert seconds <= await terminate(drain, stopped) < seconds + 1


@pytest.mark.parametrize("setting", [0, "wrong"])
async def test_all_sockets_are_closed_at_once(stopped, settings, monkeypatch, setting):
    """With 0; a wrong value is replaced by the default, which is shortened here."""
    settings.COCOBASE_REALTIME = {"DRAIN": setting}
    option = drain_module.OPTIONS["DRAIN"]
    monkeypatch.setitem(drain_module.OPTIONS, "DRAIN", replace(option, default=0.1))
    drain = Drain()
    sockets = Sockets(drain)
    sockets.open(1000)
    assert await terminate(drain, stopped) < drain_module.CLOSE_TIMEOUT
    assert len(sockets.closed) == 1000


async def test_stalled_sockets_do_not_delay_the_end(stopped, settings, caplog):
    settings.COCOBASE_REALTIME = {"DRAIN": 0.3}
    caplog.set_level(logging.INFO)
    drain = Drain()
    sockets = Sockets(drain)
    sockets.open(5, stalled=True)
    seconds = await terminate(drain, stopped)
    assert 0.2 + drain_module.CLOSE_TIMEOUT <= seconds < 2
    assert len(sockets.closed) == sockets.dropped == 5
    assert "5 of them dropped" in caplog.text


async def test_time_in_which_event_loop_is_blocked_counts(stopped, settings):
    settings.COCOBASE_REALTIME = {"DRAIN": 0.5}
    drain = Drain()
    sockets = Sockets(drain)
    sockets.open(200)
    asyncio.get_running_loop().call_later(0.1, time.sleep, 1)
    assert 1 < await terminate(drain, stopped) < 1.8
    assert len(sockets.closed) == 200


async def test_sockets_of_other_event_loops_are_closed_in_them(stopped, settings):
    settings.COCOBASE_REALTIME = {"DRAIN": 0.2}
    drain, names, opened = Drain(), [], threading.Event()

    async def serve():
        ended = asyncio.Event()

        def close(retry_after_ms):
            names.append(threading.current_thread().name)
            drain.remove(close)
            ended.set()

        drain.add(close)
        opened.set()
        await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="other loop")
    thread.start()
    opened.wait(5)
    Sockets(drain).open(2)
    # a loop that is closed without removing its sockets
    closed_loop = asyncio.new_event_loop()
    closed_loop.close()
    drain._sockets[lambda retry_after_ms: None] = closed_loop
    await terminate(drain, stopped)
    thread.join(5)
    assert names == ["other loop"]
    assert len(drain) == 0


async def test_socket_that_opens_during_the_drain_is_closed(stopped, settings):
    settings.COCOBASE_REALTIME = {"DRAIN": 1}
    drain = Drain()
    sockets = Sockets(drain)
    sockets.open(3)
    asyncio.get_running_loop().call_later(0.3, sockets.open, 1)
    await terminate(drain, stopped)
    assert len(sockets.closed) == 4


async def test_server_is_stopped_although_draining_fails(stopped, settings, monkeypatch, caplog):
    settings.COCOBASE_REALTIME = {"DRAIN": 0.1}

    def fail(handler):
        raise RuntimeError("another version of the server")

    monkeypatch.setattr(drain_module, "find_server", fail)
    drain = Drain()
    Sockets(drain).open(1)
    await terminate(drain, stopped)
    assert "Draining failed" in caplog.text


async def test_cancelled_drain_does_not_call_the_handler(stopped, settings):
    """As when SIGINT stops the event loop during the drain."""
    settings.COCOBASE_REALTIME = {"DRAIN": 5}
    drain = Drain()
    Sockets(drain).open(1, stalled=True)
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.1)
    (task,) = [t for t in asyncio.all_tasks() if t.get_coro().__name__ == "_run"]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert stopped == []

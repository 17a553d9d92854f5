"""The handler of SIGTERM that is installed in front of that of the ASGI server."""

import asyncio
import os
import signal
import threading

import pytest

from django_cocobase_realtime.hub.termination import TerminationSignal


@pytest.fixture
def calls():
    """Return the list of calls, and restore the handler of the test process."""
    before = signal.getsignal(signal.SIGTERM)
    yield []
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def termination(calls):
    return TerminationSignal(lambda: calls.append("drain"))


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


async def test_server_handler_is_called_later_and_restored(calls, termination):
    def handler(number, frame):
        calls.append(number)

    signal.signal(signal.SIGTERM, handler)
    for _ in range(3):
        termination.install()
    assert termination.server_handler is handler
    terminate()
    terminate()
    assert calls == ["drain", "drain"]
    termination.hand_over()
    termination.hand_over()
    assert calls == ["drain", "drain", signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is handler


async def test_handler_of_event_loop_is_called_later_and_restored(calls, termination):
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, calls.append, "server")
    for _ in range(3):
        termination.install()
    terminate()
    await asyncio.sleep(0.05)
    assert calls == ["drain"]
    termination.hand_over()
    assert calls == ["drain", "server"]
    terminate()
    await asyncio.sleep(0.05)
    assert calls == ["drain", "server", "server"]
    loop.remove_signal_handler(signal.SIGTERM)


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
async def test_default_and_ignored_signal_stay_as_they_are(termination, handler):
    """As in tests, shells and programs that run the application themselves."""
    signal.signal(signal.SIGTERM, handler)
    termination.install()
    assert signal.getsignal(signal.SIGTERM) is handler


async def test_handlers_that_cannot_be_called_stay_as_they_are(calls, termination, monkeypatch):
    """One that is not written in Python, and one that belongs to the event loop, as with uvloop."""
    loop = asyncio.get_running_loop()
    for current in (None, loop.stop):
        with monkeypatch.context() as patch:
            patch.setattr(signal, "getsignal", lambda number, current=current: current)
            termination.install()
        assert signal.getsignal(signal.SIGTERM) != termination._handle
    termination.hand_over()
    assert calls == []


async def test_nothing_is_installed_outside_of_main_thread(calls, termination):
    signal.signal(signal.SIGTERM, lambda number, frame: calls.append("server"))

    async def install():
        termination.install()

    thread = threading.Thread(target=asyncio.run, args=[install()])
    thread.start()
    thread.join()
    terminate()
    assert calls == ["server"]


def test_server_handler_is_called_at_once_if_event_loop_has_ended(calls, termination):
    signal.signal(signal.SIGTERM, lambda number, frame: calls.append("server"))

    async def install():
        termination.install()

    asyncio.run(install())
    terminate()
    terminate()
    assert calls == ["server", "server"]


async def test_forked_process_calls_the_server_handler(calls, termination):
    signal.signal(signal.SIGTERM, lambda number, frame: calls.append("server"))
    termination.install()
    termination._pid = -1  # the process that has installed it is another one
    terminate()
    assert calls == ["server"]


async def test_handler_that_server_sets_again_is_replaced_again(calls, termination):
    for name in ("first", "second"):
        signal.signal(signal.SIGTERM, lambda number, frame, name=name: calls.append(name))
        termination.install()
    terminate()
    termination.hand_over()
    assert calls == ["drain", "second"]

"""A handler of SIGTERM in front of that of the ASGI server.

ASGI has no hook for the moment at which a server is asked to stop: when an application notices it,
its connections are closed already. Therefore the first WebSocket replaces the server's handler by
one that delays it.

A server sets its handler in one of two ways. uvicorn, gunicorn's uvicorn workers and daphne call
``signal.signal``. hypercorn and granian call ``loop.add_signal_handler``, after which
``signal.getsignal`` returns a function that does nothing, and the event loop has the handler.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import Any


class TerminationSignal:
    """Calls ``on_signal`` in the main thread's event loop instead of the server's handler.

    It replaces only a handler that can be called later. If SIGTERM has its default effect, is
    ignored, or is handled by code that is not Python, nothing is changed.
    """

    def __init__(self, on_signal: Callable[[], None]) -> None:
        # called when the signal arrives, in a signal handler: it may do nothing but set attributes
        # and schedule calls
        self._on_signal = on_signal
        # the event loop in which WebSockets were opened in the main thread
        self.loop: asyncio.AbstractEventLoop | None = None
        # the process in which the handler was installed; forked ones must not use its event loop
        self._pid = 0
        # the server's handler, if it was set by `signal.signal`
        self.server_handler: Callable[[int, Any], Any] | None = None
        # the server's handler, if it was set by `add_signal_handler`
        self._loop_handler: Any = None

    def install(self) -> None:
        """Replace the server's handler, unless that was done or is not possible.

        Call this in an event loop, each time a WebSocket is opened, because a server may have set
        its handler again.
        """
        if threading.current_thread() is not threading.main_thread():
            return  # handlers can be set in the main thread only
        self.loop = loop = asyncio.get_running_loop()
        current = signal.getsignal(signal.SIGTERM)
        if current == self._handle:
            return
        handlers = getattr(loop, "_signal_handlers", None) or {}
        in_loop = handlers.get(signal.SIGTERM)
        if in_loop is not None:
            if in_loop._callback != self._handle_in_loop:
                self._pid, self._loop_handler, self.server_handler = os.getpid(), in_loop, None
                loop.add_signal_handler(signal.SIGTERM, self._handle_in_loop)
        elif callable(current) and getattr(current, "__self__", None) is not loop:
            # a handler that belongs to the loop, as with uvloop, is called by the loop anyway
            self._pid, self._loop_handler, self.server_handler = os.getpid(), None, current
            signal.signal(signal.SIGTERM, self._handle)

    def hand_over(self) -> None:
        """Restore the server's handler, and call it. Does nothing if it is not replaced."""
        loop, in_loop, handler = self.loop, self._loop_handler, self.server_handler
        self._loop_handler = self.server_handler = None
        if in_loop is not None and loop is not None:
            loop._signal_handlers[signal.SIGTERM] = in_loop  # type: ignore[attr-defined]
            in_loop._run()
        elif handler is not None:
            if signal.getsignal(signal.SIGTERM) == self._handle:
                signal.signal(signal.SIGTERM, handler)
            handler(signal.SIGTERM, None)

    def _handle(self, number: int, frame: Any) -> None:
        loop = self.loop
        if os.getpid() == self._pid and loop is not None and loop.is_running():
            self._on_signal()
        else:
            self.hand_over()

    def _handle_in_loop(self) -> None:
        self._on_signal()

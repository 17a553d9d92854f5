"""The connections of the server's model, in virtual time."""

from __future__ import annotations

import heapq
import itertools
import json
from collections.abc import Callable
from typing import Any

from tests.clients.model.links import Frame, Link

# seconds by which the clocks of clients may differ from the model's
ROUNDING = 1e-6


class Network:
    """Delivers what the client and the server send, late or never. Times are virtual seconds."""

    def __init__(self, client: Any, observer: Any) -> None:
        self.client = client
        # receives what the client sends, and what arrives there
        self.observer = observer
        self.now = 0.0
        # connections that the client has not lost
        self.links: dict[int, Link] = {}
        # what happens to new connections: "up", "down", "silent"
        self.network = "up"
        # seconds that frames take to the client, on new connections
        self.latency = 0.0
        # seconds that the server takes for each request, on new connections
        self.thinking = 0.0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count(1)

    # for the server

    def admit(self, link: Link) -> None:
        """Handle that a connection begins."""
        raise NotImplementedError

    def forget(self, link: Link) -> None:
        """Handle that a connection is lost."""
        raise NotImplementedError

    def handle(self, link: Link, request: Frame, at: float) -> None:
        """Handle a request that was sent at some time."""
        raise NotImplementedError

    # time

    def call_at(self, due: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (max(due, self.now), next(self._numbers), callback))

    @property
    def next_due(self) -> float:
        return self._timers[0][0] if self._timers else float("inf")

    def advance(self, now: float) -> bool:
        """Do what is due; return whether there was something."""
        self.now = max(self.now, now)
        count = 0
        while self._timers and self._timers[0][0] <= self.now + ROUNDING:
            heapq.heappop(self._timers)[2]()
            count += 1
        return count > 0

    # connections

    def connect(self, socket: int) -> None:
        """Handle that the client opens a connection."""
        link = self.links[socket] = Link(socket, self.latency, self.thinking)
        self.admit(link)
        if self.network == "up":
            self._queue(link, lambda: self._open(link))
        elif self.network == "down":
            self.links.pop(socket)
            self.call_at(self.now, lambda: self.client.do("end", socket=socket, code=1006))

    def hang_up(self, socket: int) -> None:
        """Handle that the client closes a connection."""
        self.drop(socket)
        self.call_at(self.now + 0.01, lambda: self.client.do("end", socket=socket, code=1005))

    def drop(self, socket: int) -> None:
        """Forget a connection, and all that is on its way."""
        link = self.links.pop(socket, None)
        if link is None:
            return
        link.closed = True
        self.forget(link)

    def cut(self, link: Link, code: int = 1006) -> None:
        """End a connection without a word."""
        self.drop(link.socket)
        self.client.do("end", socket=link.socket, code=code)
        self.observer.ended(link, code, None, self.now)

    def close(self, link: Link, code: int, retry_after_ms: int | None, closing: bool) -> None:
        """Close a connection, with or without the ``closing`` frame."""
        if closing:
            frame = {"type": "closing", "code": code, "reason": "Because.", "at": "now"}
            self.send(link, {**frame, "retry_after_ms": retry_after_ms})
        retry = retry_after_ms if closing else None

        def end() -> None:
            self.client.do("end", socket=link.socket, code=code)
            self.observer.ended(link, code, retry, self.now)

        self._queue(link, end)
        self.call_at(link.last_due, lambda: self.drop(link.socket))
        link.closed = True

    def _queue(self, link: Link, callback: Callable[[], None]) -> None:
        """Call a function when what was sent before has arrived, unless the link is cut."""
        link.last_due = max(link.last_due, self.now + link.latency)

        def deliver() -> None:
            if self.links.get(link.socket) is link and not link.mute:
                callback()

        self.call_at(link.last_due, deliver)

    def _open(self, link: Link) -> None:
        link.opened = True
        self.client.do("open", socket=link.socket)

    def send(self, link: Link, frame: Frame, on_arrival: Callable[[], None] | None = None) -> None:
        """Send a frame, and call a function when it arrives."""
        if link.closed:
            return

        def deliver() -> None:
            self.client.do("frame", socket=link.socket, text=json.dumps(frame))
            if on_arrival is not None:
                on_arrival()

        self._queue(link, deliver)

    def receive(self, socket: int, frame: Frame, at: float) -> None:
        """Handle a frame of the client."""
        link = self.links.get(socket)
        if link is None or link.closed:
            return
        self.observer.requested(link, frame, at)
        if link.deaf:
            return
        link.next_request = max(link.next_request, self.now + link.thinking)

        def handle() -> None:
            if not link.closed:
                self.handle(link, frame, at)

        self.call_at(link.next_request, handle)

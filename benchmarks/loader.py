"""The load generator: one process, one epoll loop, a bare WebSocket reader (RFC 6455).

It answers to JSON lines on stdin (`benchmarks.load.Load` writes them). Every event carries the
mark ``#number@nanoseconds#``; event ``n`` belongs to class ``n % classes``, and a socket expects
exactly the events of its own class, in order. So each delivery is checked as it is read: lost,
repeated, misdirected. No extension is offered, so nothing is compressed.
"""

from __future__ import annotations

import base64
import json
import os
import re
import resource
import select
import socket
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable
from typing import Any

MARK = re.compile(rb"#(\d+)@(\d+)#")
KEY = base64.b64encode(b"x" * 16).decode()
CHUNK = 16_384  # bytes read at a time
NAP = 0.0005  # seconds between looks at the sockets: a reader that wakes for each frame would
# cost the server a wake-up a frame, which clients on other machines do not
WINDOW = 64  # sockets that are being opened at a time
PER_ADDRESS = 20_000  # sockets that one source address opens
clock = time.monotonic_ns


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """A client's frame; masked with zeros, as masked frames cost the server the same."""
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | opcode, 0x80 | length))
    else:
        head = bytes((0x80 | opcode, 0x80 | 126)) + length.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


class Client:
    """One socket. ``steps`` are what it still has to say: (text or None, what to wait for)."""

    __slots__ = (
        "buffer",
        "closed",
        "klass",
        "next",
        "open",
        "receive_buffer",
        "recv",
        "socket",
        "steps",
        "url",
    )

    def __init__(
        self, url: list[Any], klass: int, steps: list[Any], receive_buffer: int | None = None
    ) -> None:
        self.url = url
        self.receive_buffer = receive_buffer
        self.klass = klass
        self.next = klass
        self.steps = steps[::-1]
        self.buffer = b""
        self.open = False
        self.closed: int | None = None
        self.socket: socket.socket | None = None
        self.recv: Callable[[int], bytes] = lambda size: b""

    def connect(self, number: int) -> int:
        self.socket = sock = socket.socket()
        self.recv = sock.recv
        if self.receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer)
        address = f"127.0.0.{1 + number // PER_ADDRESS}"
        if address != "127.0.0.1":
            sock.bind((address, 0))
        host, port, path = self.url
        sock.connect((host, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        lines = (
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        )
        sock.sendall(lines.encode())
        sock.setblocking(False)
        return sock.fileno()

    def say(self) -> None:
        """The next step; called when the one before is answered."""
        text = self.steps[-1][0] if self.steps else None
        if text is not None:
            assert self.socket is not None
            self.socket.sendall(frame(text.encode()))


class Loader:
    """All sockets of one process."""

    def __init__(self) -> None:
        self.poll = select.epoll()
        self.clients: dict[int, Client] = {}
        self.all: list[Client] = []
        self.waiting = 0  # sockets that are not through with their steps
        self.refused: str | None = None
        self.left = 0  # deliveries that are still to come
        self.classes = 1
        self.sizes: Counter[int] = Counter()
        self.number = 0  # the next event's
        self.faults = Counter({"lost": 0, "duplicates": 0, "misdirected": 0})
        self.delays = array("q")
        self.seen = 0  # deliveries and faults that were told of
        self.late = 0  # what came after it was told
        self.arrivals: tuple[array[int], array[int]] | None = None
        self.committed: dict[int, int] = {}
        self.echoes = False  # the trigger alone: its answers are counted
        self.frames = self.bytes = 0
        self.cached: bytes = b""  # the last payload, and what it is marked with
        self.marks: list[tuple[int, int]] = []
        self.chunk: bytes = b""  # the last whole chunk of one frame: most sockets get the same
        self.control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.control.bind(("127.0.0.1", 0))
        self.control.setblocking(False)
        self.poll.register(self.control.fileno(), select.EPOLLIN)
        self.stdin = b""
        self.poll.register(0, select.EPOLLIN)

    # reading

    def turn(self, seconds: float) -> bool:
        """Read what is there, waiting for it ``seconds`` at most. False: nothing came."""
        ready = self.poll.poll(seconds)
        for fd, _ in ready:
            client = self.clients.get(fd)
            if client is not None:
                self.read(client)
            elif fd == 0:
                self.listen()
            else:
                self.hear()
        return bool(ready)

    def listen(self) -> None:
        data = os.read(0, 1 << 20)
        if not data:
            sys.exit(0)
        self.stdin += data

    def hear(self) -> None:
        try:
            while True:
                answer = json.loads(self.control.recv(1024))
                self.committed[answer["n"]] = answer["at"]
                if self.echoes:
                    self.left -= 1
        except BlockingIOError:
            return

    def read(self, client: Client) -> None:
        try:
            data = client.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.gone(client)
            return
        now = clock()
        if client.buffer:
            data = client.buffer + data
        elif data == self.chunk:
            self.frames += 1
            self.bytes += len(self.cached)
            for number, at in self.marks:
                self.count(client, number, at, now)
            return
        if not client.open:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                client.buffer = data
                return
            if b" 101 " not in data[:end]:
                self.refused = data[:end].decode("latin1")
                self.gone(client)
                return
            client.open = True
            data = data[end + 4 :]
            self.through(client)
        at, size = 0, len(data)
        while size - at >= 2:
            length, head = data[at + 1], 2
            if length == 126:
                if size - at < 4:
                    break
                length, head = data[at + 2] << 8 | data[at + 3], 4
            elif length == 127:
                if size - at < 10:
                    break
                length, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
            end = at + head + length
            if end > size:
                break
            opcode = data[at] & 15
            self.take(client, opcode, data[at + head : end], now)
            if opcode == 1 and self.marks and end - at == size:
                self.chunk = data
            at = end
        client.buffer = data[at:]

    def take(self, client: Client, opcode: int, payload: bytes, now: int) -> None:
        if opcode == 1:
            self.frames += 1
            self.bytes += len(payload)
            if payload != self.cached:
                self.cached = payload
                self.chunk = b""
                self.marks = [(int(n), int(t)) for n, t in MARK.findall(payload)]
            if self.marks:
                for number, at in self.marks:
                    self.count(client, number, at, now)
            elif payload == b"2":  # Socket.IO's ping
                assert client.socket is not None
                client.socket.send(frame(b"3"))
            else:
                self.answer(client, payload.decode())
        elif opcode == 9:
            assert client.socket is not None
            client.socket.send(frame(payload, 10))
        elif opcode == 8:
            client.closed = int.from_bytes(payload[:2], "big") if payload else 1005

    def count(self, client: Client, number: int, at: int, now: int) -> None:
        if number == client.next:
            client.next = number + self.classes
        elif number % self.classes != client.klass:
            self.faults["misdirected"] += 1
            return
        elif number < client.next:
            self.faults["duplicates"] += 1
            return
        else:
            self.faults["lost"] += (number - client.next) // self.classes
            client.next = number + self.classes
        self.left -= 1
        self.delays.append(now - at)
        if self.arrivals is not None:
            self.arrivals[0].append(number)
            self.arrivals[1].append(now)

    def answer(self, client: Client, text: str) -> None:
        if not client.steps:
            return
        if client.steps[-1][1] in text:
            client.steps.pop()
            self.through(client)
        elif '"type":"error"' in text or '"code":' in text:
            self.refused = text
            client.steps.clear()
            self.through(client)

    def through(self, client: Client) -> None:
        if client.steps:
            client.say()
        else:
            self.waiting -= 1

    def gone(self, client: Client) -> None:
        assert client.socket is not None
        self.clients.pop(client.socket.fileno(), None)
        self.poll.unregister(client.socket.fileno())
        client.socket.close()
        if client.closed is None:
            client.closed = 1006
        if client.steps:
            client.steps.clear()
            self.waiting -= 1

    # what it is told to do

    def open(self, sockets: list[Any], timeout: float) -> dict[str, Any]:
        """Open sockets, each with its url, class, and steps."""
        began = time.monotonic()
        fresh = [Client(*each) for each in sockets]
        todo = fresh[::-1]
        self.waiting = 0
        while (todo and self.refused is None) or self.waiting:
            while todo and self.refused is None and self.waiting < WINDOW:
                client = todo.pop()
                fd = client.connect(len(self.all))
                self.clients[fd] = client
                self.all.append(client)
                self.poll.register(fd, select.EPOLLIN)
                self.waiting += 1
            self.turn(0.1)
            if time.monotonic() - began > timeout:
                self.refused = f"{self.waiting} sockets were not through in {timeout} s"
                break
        self.sizes = Counter(c.klass for c in self.all)
        return self.told(began)

    def again(self, steps: list[Any], timeout: float) -> dict[str, Any]:
        """New steps on the open sockets: [class, steps] each, in the order of opening."""
        began = time.monotonic()
        self.refused, self.waiting = None, 0
        queue = list(zip(self.all, steps, strict=True))[::-1]
        while (queue and self.refused is None) or self.waiting:
            while queue and self.refused is None and self.waiting < WINDOW:
                client, (klass, each) = queue.pop()
                client.klass, client.steps = klass, each[::-1]
                self.waiting += 1
                self.through(client)
            self.turn(0.1)
            if time.monotonic() - began > timeout:
                self.refused = f"{self.waiting} sockets were not through in {timeout} s"
                break
        self.sizes = Counter(c.klass for c in self.all)
        return self.told(began)

    def told(self, began: float) -> dict[str, Any]:
        closed = Counter(c.closed for c in self.all if c.closed is not None)
        return {
            "open": len(self.clients),
            "refused": self.refused,
            "closed": dict(closed),
            "seconds": time.monotonic() - began,
        }

    def begin(self, classes: int) -> dict[str, Any]:
        """Before the first event for these sockets, or for other classes of them."""
        self.classes = classes
        self.number += -self.number % classes
        for client in self.all:
            client.next = self.number + client.klass
        return {"number": self.number}

    def trigger(self, ports: list[int], count: int, message: dict[str, Any]) -> int:
        """Ask for the next events; their number of deliveries."""
        expected = 0
        for number in range(self.number, self.number + count):
            expected += self.sizes[number % self.classes]
        told = {"first": self.number, "count": count, "classes": self.classes, **message}
        payload = json.dumps(told).encode()
        for port in ports:
            self.control.sendto(payload, ("127.0.0.1", port))
        self.number += count
        return expected

    def closed_loop(
        self,
        ports: list[int],
        seconds: float,
        least: int,
        count: int,
        message: dict[str, Any],
        timeout: float,
    ) -> dict[str, Any]:
        """The next ``count`` events once all have the last; for ``seconds``, ``least`` rounds."""
        self.reset()
        self.echoes = bool(message.get("nothing"))
        began, rounds, deliveries = time.monotonic(), 0, 0
        while rounds < least or time.monotonic() - began < seconds:
            expected = self.trigger(ports, count, message)
            if self.echoes:
                expected = 1
            self.left += expected
            deliveries += expected
            rounds += 1
            deadline = time.monotonic() + timeout
            while self.left > 0 and time.monotonic() < deadline:
                time.sleep(NAP)
                self.turn(1.0)
            if self.left > 0:
                break
        if self.echoes:  # none of these numbers was an event
            self.number -= rounds * count
        return self.measured(began, rounds * count, deliveries)

    def paced(
        self, ports: list[int], rate: float, events: int, message: dict[str, Any], timeout: float
    ) -> dict[str, Any]:
        """``events`` at ``rate`` a second, whoever has got them; delays since each commit."""
        self.reset()
        self.arrivals = (array("q"), array("q"))
        began, deliveries = time.monotonic(), 0
        for number in range(events):
            deliveries += self.trigger(ports, 1, message)
            self.left = deliveries - len(self.arrivals[0])
            due = began + (number + 1) / rate
            while (ahead := due - time.monotonic()) > 0:
                self.turn(ahead)
                time.sleep(NAP)
        deadline = time.monotonic() + timeout
        committed = events if message.get("save") else 0
        while self.left > 0 or len(self.committed) < committed:
            if time.monotonic() > deadline:
                break
            self.turn(0.05)
            self.left = deliveries - len(self.arrivals[0])
        numbers, times = self.arrivals
        self.arrivals = None
        delays = self.delays
        if self.committed:
            pairs = zip(numbers, times, strict=True)
            delays = array("q", (t - self.committed[n] for n, t in pairs if n in self.committed))
        return self.measured(began, events, deliveries, delays)

    def reset(self) -> None:
        self.late += len(self.delays) + self.faults.total() - self.seen
        self.seen = 0
        self.left = self.frames = self.bytes = 0
        self.delays = array("q")
        self.committed.clear()
        for name in self.faults:
            self.faults[name] = 0
        self.cpu = time.process_time()

    def measured(
        self, began: float, events: int, deliveries: int, delays: Any = None
    ) -> dict[str, Any]:
        wall, cpu = time.monotonic() - began, time.process_time() - self.cpu
        ordered = sorted(self.delays if delays is None else delays)

        def share(part: float) -> float | None:
            return (
                ordered[min(len(ordered) - 1, int(part * len(ordered)))] / 1e6 if ordered else None
            )

        missing = max(self.left, 0)
        self.seen = len(self.delays) + self.faults.total()
        self.left = 0
        return {
            "events": events,
            "deliveries": deliveries,
            "frames": self.frames,
            "frame_bytes": self.bytes / self.frames if self.frames else 0,
            "lost": self.faults["lost"] + missing,
            "duplicates": self.faults["duplicates"],
            "misdirected": self.faults["misdirected"],
            "wall": wall,
            "loader_cpu": cpu,
            "p50_ms": share(0.5),
            "p99_ms": share(0.99),
            "max_ms": share(1),
        }

    def quiet(self, seconds: float) -> dict[str, Any]:
        """Whatever still comes is one too many."""
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            self.turn(rest)
        closed = Counter(c.closed for c in self.all if c.closed is not None)
        late = self.late + len(self.delays) + self.faults.total() - self.seen
        return {"late": late, "closed": dict(closed)}

    def stall(self, index: int) -> dict[str, Any]:
        """Read nothing more from one socket; the others' counts go on without it."""
        client = self.all[index]
        assert client.socket is not None
        self.poll.unregister(client.socket.fileno())
        self.sizes[client.klass] -= 1
        return {}

    def wake(self, index: int, timeout: float) -> dict[str, Any]:
        """Read a stalled socket to its end: the code with which it was closed, None if it was not.

        ``bytes`` is what had waited for it.
        """
        client = self.all[index]
        assert client.socket is not None
        client.socket.settimeout(timeout)
        tail, total, deadline = b"", 0, time.monotonic() + timeout
        code: int | None = None
        try:
            while code is None and time.monotonic() < deadline:
                data = client.socket.recv(65_536)
                if not data:
                    code = 1006
                total += len(data)
                tail = (tail + data)[-127:]
                for size in range(2, len(tail) - 1):  # does it end with a close frame?
                    if tail[-size - 2] == 0x88 and tail[-size - 1] == size:
                        code = int.from_bytes(tail[-size:][:2], "big")
        except OSError:
            pass
        return {"code": code, "bytes": total}

    def run(self) -> None:
        while True:
            while b"\n" not in self.stdin:
                self.turn(60)
            line, _, self.stdin = self.stdin.partition(b"\n")
            order = json.loads(line)
            try:
                answer = getattr(self, order.pop("do"))(**order)
            except Exception as error:
                answer = {"error": repr(error)}
            sys.stdout.write(json.dumps(answer) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Loader().run()

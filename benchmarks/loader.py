"""The load generator: one process with an epoll loop and a minimal WebSocket reader (RFC 6455).

It reads commands as JSON lines from stdin (written by `benchmarks.load.Load`) and writes their
results to stdout. Every event contains the mark ``#number@nanoseconds#``. Event ``n`` belongs to
class ``n % classes``, and a socket expects exactly the events of its own class, in order. Each
delivery is checked when it is read: it may be lost, duplicated or misdirected. The sockets offer no
extension, so nothing is compressed.
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
CHUNK_BYTES = 16_384  # that are read at a time
# Seconds to sleep before each poll. Waking up for each frame would cost the server a context
# switch per frame, which clients on other machines do not cause.
POLL_PAUSE = 0.0005
OPENING_SOCKETS = 64  # that are opened at the same time
SOCKETS_PER_ADDRESS = 20_000  # that use the same source address
clock = time.monotonic_ns


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """Return a client's frame. The mask is zero: it costs the server the same as any other."""
    length = len(payload)
    if length < 126:
        head = bytes((0x80 | opcode, 0x80 | length))
    else:
        head = bytes((0x80 | opcode, 0x80 | 126)) + length.to_bytes(2, "big")
    return head + b"\0\0\0\0" + payload


class Client:
    """One socket. ``steps`` are its remaining steps: (text to send or None, expected reply)."""

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
        address = f"127.0.0.{1 + number // SOCKETS_PER_ADDRESS}"
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

    def send_step(self) -> None:
        """Send the text of the next step, when the previous step has been answered."""
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
        self.waiting = 0  # sockets that have not completed their steps
        self.refused: str | None = None
        self.left = 0  # deliveries that have not arrived yet
        self.classes = 1
        self.sizes: Counter[int] = Counter()
        self.number = 0  # number of the next event
        self.faults = Counter({"lost": 0, "duplicates": 0, "misdirected": 0})
        self.delays = array("q")
        self.seen = 0  # deliveries and faults that were reported
        self.late = 0  # events that arrived after the report
        self.arrivals: tuple[array[int], array[int]] | None = None
        self.committed: dict[int, int] = {}
        self.echoes = False  # whether only the trigger is measured, by its replies
        self.frames = self.bytes = 0
        self.cached: bytes = b""  # the last payload; its marks are in ``marks``
        self.marks: list[tuple[int, int]] = []
        self.chunk: bytes = b""  # the last chunk with one whole frame, which most sockets receive
        self.control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.control.bind(("127.0.0.1", 0))
        self.control.setblocking(False)
        self.poll.register(self.control.fileno(), select.EPOLLIN)
        self.stdin = b""
        self.poll.register(0, select.EPOLLIN)

    # reading from the sockets

    def poll_sockets(self, seconds: float) -> bool:
        """Read available data, waiting at most ``seconds``. Return whether there was any."""
        ready = self.poll.poll(seconds)
        for fd, _ in ready:
            client = self.clients.get(fd)
            if client is not None:
                self.read(client)
            elif fd == 0:
                self.read_stdin()
            else:
                self.read_control()
        return bool(ready)

    def read_stdin(self) -> None:
        data = os.read(0, 1 << 20)
        if not data:
            sys.exit(0)
        self.stdin += data

    def read_control(self) -> None:
        try:
            while True:
                reply = json.loads(self.control.recv(1024))
                self.committed[reply["n"]] = reply["at"]
                if self.echoes:
                    self.left -= 1
        except BlockingIOError:
            return

    def read(self, client: Client) -> None:
        try:
            data = client.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.handle_disconnect(client)
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
                self.handle_disconnect(client)
                return
            client.open = True
            data = data[end + 4 :]
            self.continue_steps(client)
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
            self.handle_frame(client, opcode, data[at + head : end], now)
            if opcode == 1 and self.marks and end - at == size:
                self.chunk = data
            at = end
        client.buffer = data[at:]

    def handle_frame(self, client: Client, opcode: int, payload: bytes, now: int) -> None:
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
                self.handle_reply(client, payload.decode())
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

    def handle_reply(self, client: Client, text: str) -> None:
        if not client.steps:
            return
        if client.steps[-1][1] in text:
            client.steps.pop()
            self.continue_steps(client)
        elif '"type":"error"' in text or '"code":' in text:
            self.refused = text
            client.steps.clear()
            self.continue_steps(client)

    def continue_steps(self, client: Client) -> None:
        if client.steps:
            client.send_step()
        else:
            self.waiting -= 1

    def handle_disconnect(self, client: Client) -> None:
        assert client.socket is not None
        self.clients.pop(client.socket.fileno(), None)
        self.poll.unregister(client.socket.fileno())
        client.socket.close()
        if client.closed is None:
            client.closed = 1006
        if client.steps:
            client.steps.clear()
            self.waiting -= 1

    # commands

    def open(self, sockets: list[Any], timeout: float) -> dict[str, Any]:
        """Open sockets, each with its URL, class and steps."""
        began = time.monotonic()
        fresh = [Client(*arguments) for arguments in sockets]
        todo = fresh[::-1]
        self.waiting = 0
        while (todo and self.refused is None) or self.waiting:
            while todo and self.refused is None and self.waiting < OPENING_SOCKETS:
                client = todo.pop()
                fd = client.connect(len(self.all))
                self.clients[fd] = client
                self.all.append(client)
                self.poll.register(fd, select.EPOLLIN)
                self.waiting += 1
            self.poll_sockets(0.1)
            if time.monotonic() - began > timeout:
                self.refused = f"{self.waiting} sockets did not complete their steps in {timeout} s"
                break
        self.sizes = Counter(c.klass for c in self.all)
        return self.open_result(began)

    def send_steps(self, steps: list[Any], timeout: float) -> dict[str, Any]:
        """Send new steps on the open sockets: [class, steps] each, in the order of opening."""
        began = time.monotonic()
        self.refused, self.waiting = None, 0
        queue = list(zip(self.all, steps, strict=True))[::-1]
        while (queue and self.refused is None) or self.waiting:
            while queue and self.refused is None and self.waiting < OPENING_SOCKETS:
                client, (klass, client_steps) = queue.pop()
                client.klass, client.steps = klass, client_steps[::-1]
                self.waiting += 1
                self.continue_steps(client)
            self.poll_sockets(0.1)
            if time.monotonic() - began > timeout:
                self.refused = f"{self.waiting} sockets did not complete their steps in {timeout} s"
                break
        self.sizes = Counter(c.klass for c in self.all)
        return self.open_result(began)

    def open_result(self, began: float) -> dict[str, Any]:
        closed = Counter(c.closed for c in self.all if c.closed is not None)
        return {
            "open": len(self.clients),
            "refused": self.refused,
            "closed": dict(closed),
            "seconds": time.monotonic() - began,
        }

    def begin(self, classes: int) -> dict[str, Any]:
        """Start counting events, in this number of classes."""
        self.classes = classes
        self.number += -self.number % classes
        for client in self.all:
            client.next = self.number + client.klass
        return {"number": self.number}

    def trigger(self, ports: list[int], count: int, message: dict[str, Any]) -> int:
        """Trigger the next events. Return the expected number of deliveries."""
        expected = 0
        for number in range(self.number, self.number + count):
            expected += self.sizes[number % self.classes]
        command = {"first": self.number, "count": count, "classes": self.classes, **message}
        payload = json.dumps(command).encode()
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
        """Trigger ``count`` events per round, each round after the last has arrived everywhere."""
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
                time.sleep(POLL_PAUSE)
                self.poll_sockets(1.0)
            if self.left > 0:
                break
        if self.echoes:  # these numbers were not used for events
            self.number -= rounds * count
        return self.measurement(began, rounds * count, deliveries)

    def paced(
        self, ports: list[int], rate: float, events: int, message: dict[str, Any], timeout: float
    ) -> dict[str, Any]:
        """Trigger ``events`` at ``rate`` per second; measure the delays since each commit."""
        self.reset()
        self.arrivals = (array("q"), array("q"))
        began, deliveries = time.monotonic(), 0
        for number in range(events):
            deliveries += self.trigger(ports, 1, message)
            self.left = deliveries - len(self.arrivals[0])
            due = began + (number + 1) / rate
            while (ahead := due - time.monotonic()) > 0:
                self.poll_sockets(ahead)
                time.sleep(POLL_PAUSE)
        deadline = time.monotonic() + timeout
        committed = events if message.get("save") else 0
        while self.left > 0 or len(self.committed) < committed:
            if time.monotonic() > deadline:
                break
            self.poll_sockets(0.05)
            self.left = deliveries - len(self.arrivals[0])
        numbers, times = self.arrivals
        self.arrivals = None
        delays = self.delays
        if self.committed:
            pairs = zip(numbers, times, strict=True)
            delays = array("q", (t - self.committed[n] for n, t in pairs if n in self.committed))
        return self.measurement(began, events, deliveries, delays)

    def reset(self) -> None:
        self.late += len(self.delays) + self.faults.total() - self.seen
        self.seen = 0
        self.left = self.frames = self.bytes = 0
        self.delays = array("q")
        self.committed.clear()
        for name in self.faults:
            self.faults[name] = 0
        self.cpu = time.process_time()

    def measurement(
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
        """Count the events that still arrive, which are too many."""
        deadline = time.monotonic() + seconds
        while (rest := deadline - time.monotonic()) > 0:
            self.poll_sockets(rest)
        closed = Counter(c.closed for c in self.all if c.closed is not None)
        late = self.late + len(self.delays) + self.faults.total() - self.seen
        return {"late": late, "closed": dict(closed)}

    def stall(self, index: int) -> dict[str, Any]:
        """Stop reading from one socket, and leave it out of the counts."""
        client = self.all[index]
        assert client.socket is not None
        self.poll.unregister(client.socket.fileno())
        self.sizes[client.klass] -= 1
        return {}

    def wake(self, index: int, timeout: float) -> dict[str, Any]:
        """Read a stalled socket to its end. Return its close code, None if it was not closed.

        ``bytes`` is the amount of data that was buffered for it.
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
                for size in range(2, len(tail) - 1):  # check if it ends with a close frame
                    if tail[-size - 2] == 0x88 and tail[-size - 1] == size:
                        code = int.from_bytes(tail[-size:][:2], "big")
        except OSError:
            pass
        return {"code": code, "bytes": total}

    def run(self) -> None:
        while True:
            while b"\n" not in self.stdin:
                self.poll_sockets(60)
            line, _, self.stdin = self.stdin.partition(b"\n")
            command = json.loads(line)
            try:
                result = getattr(self, command.pop("do"))(**command)
            except Exception as error:
                result = {"error": repr(error)}
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    Loader().run()

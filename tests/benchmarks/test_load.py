"""The load generator detects lost, duplicate and misdirected events."""

import json
import socket
import threading

import pytest

from benchmarks.load import Load


def event(*numbers):
    body = "".join(f"#{n}@1#" for n in numbers).encode()
    return bytes((0x81, len(body))) + body


class FakeServer:
    """A server for one WebSocket; the test supplies its answer to each trigger."""

    def __init__(self, script):
        self.script = script
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.control.bind(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    @property
    def url(self):
        return ("127.0.0.1", self.listener.getsockname()[1], "/")

    @property
    def ports(self):
        return [self.control.getsockname()[1]]

    def serve(self):
        client, _ = self.listener.accept()
        with client:
            client.recv(4096)
            client.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            client.recv(4096)
            client.sendall(b"\x81\x02ok")
            while (first := json.loads(self.control.recv(4096))["first"]) >= 0:
                for chunk in self.script(first):
                    client.sendall(chunk)

    def stop(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b'{"first": -1}', self.control.getsockname())
        self.thread.join(5)
        self.listener.close()
        self.control.close()


@pytest.fixture
def measure():
    running = []

    def run(script, classes=1, events=4):
        server, load = FakeServer(script), Load()
        running.extend((load, server))
        assert load.open([(server.url, 0, [("hello", "ok")])])["refused"] is None
        load.begin(classes)
        result = load.closed_loop(server.ports, seconds=0, least=events, timeout=1)
        result["late"] = load.quiet(0.1)["late"]
        return result

    yield run
    for started in running:
        started.stop()


def test_events_in_order_have_no_faults(measure):
    result = measure(lambda n: [event(n)])
    assert (result["deliveries"], result["lost"], result["duplicates"], result["late"]) == (
        4,
        0,
        0,
        0,
    )


def test_frames_received_in_pieces_have_no_faults(measure):
    result = measure(lambda n: [event(n)[:3], event(n)[3:]])
    assert (result["lost"], result["duplicates"], result["frames"]) == (0, 0, 4)


def test_missing_event_is_counted_as_lost(measure):
    assert measure(lambda n: [] if n == 2 else [event(n)])["lost"] == 1


def test_repeated_frame_is_counted_as_duplicate(measure):
    result = measure(lambda n: [event(n), event(n)])
    assert result["duplicates"] + result["late"] == 4
    assert result["lost"] == 0


def test_event_repeated_within_a_batch_is_counted_as_duplicate(measure):
    result = measure(lambda n: [event(n, n)])
    assert result["duplicates"] == 4


def test_event_of_another_class_is_counted_as_misdirected(measure):
    result = measure(lambda n: [event(n)], classes=2)
    assert result["misdirected"] + result["late"] == 2

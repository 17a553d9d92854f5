"""Drive each client with the same commands, and record what it reports to its program."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import subprocess
import time
from typing import Any

import pytest

from django_cocobase_realtime.client import Realtime, RealtimeError
from django_cocobase_realtime.client import connection as client_connection
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

    async def expect_nothing(self, source: str, seconds: float = 0.3) -> None:
        with contextlib.suppress(TimeoutError):
            report = await asyncio.wait_for(self._queue(source).get(), seconds)
            raise AssertionError(report)


class Driver(Reports):
    """Run commands on a client: ``await driver.do("watch", "w", collection="posts")``."""

    async def do(self, op: str, id: str | None = None, **rest: Any) -> None:
        raise NotImplementedError

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
        assert not unexpected, errors.decode()


class BrowserDriver(Driver):
    """The JavaScript client in a page of a browser."""

    def __init__(self, page: Any) -> None:
        super().__init__()
        self.page = page

    async def __aenter__(self) -> BrowserDriver:
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        await self.page.expose_function("report", self.add)
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
        await self.page.close()
        assert not self.errors


class PythonDriver(Driver):
    """The Python client, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._objects: dict[str, Any] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._clock_shift = 0.0
        self._db: Realtime | None = None
        monkeypatch.setattr(client_connection, "now", lambda: time.time() + self._clock_shift)

    def report(self, source: str, kind: str, **fields: Any) -> None:
        self.add({"source": source, "kind": kind, **fields})

    async def do(self, op: str, id: str | None = None, **rest: Any) -> None:
        getattr(self, f"do_{op}")(id, **rest)
        await asyncio.sleep(0)

    def _spawn(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _report_outcome(self, id: str, work: Any, kind: str = "ready", **fields: Any) -> None:
        async def wait() -> None:
            try:
                await work
            except RealtimeError as error:
                self.report(id, "failed", code=error.code, **fields)
            else:
                self.report(id, kind, **fields)

        self._spawn(wait())

    def do_create(self, _: Any, url: str, tokens: Any = None, timeout: float = 8000, random=0.01):
        async def token() -> str:
            return tokens.pop(0) if len(tokens) > 1 else tokens[0]

        self._db = Realtime(
            url,
            token=token if isinstance(tokens, list) else tokens,
            timeout=timeout / 1000,
            on_status=lambda status, detail: self.report("db", "status", status=status, **detail),
            on_error=lambda error: self.report("db", "error", code=error.code),
            random=lambda: random,
            proxy=None,
        )
        self._db.start()
        self._spawn(self._listen(self._db.messages()))

    async def _listen(self, messages: Any) -> None:
        with contextlib.suppress(RealtimeError):
            async for broadcast in messages:
                self.report("db", "message", message=broadcast.message)

    def do_watch(self, id: str, collection: str, options: Any = None) -> None:
        watch = self._objects[id] = self._db.watch(collection, **(options or {}))

        async def read() -> None:
            try:
                async for event in watch:
                    if event.event == "snapshot":
                        ids = [document.id for document in event.documents]
                        self.report(id, "snapshot", ids=ids, truncated=event.truncated)
                    elif event.event == "resync":
                        self.report(id, "resync", reason=event.reason)
                    else:
                        names = ("event", "id", "data", "cursor", "replayed")
                        self.report(id, "event", **{name: getattr(event, name) for name in names})
            except RealtimeError as error:
                if isinstance(error.code, str):
                    self.report(id, "error", code=error.code)

        self._spawn(read())
        self._report_outcome(id, watch.ready())

    def do_live(self, id: str, collection: str, options: Any = None) -> None:
        live = self._objects[id] = self._db.live(
            collection,
            **(options or {}),
            on_error=lambda error: self.report(id, "error", code=error.code),
        )
        self._report_outcome(id, live.ready())
        live.subscribe(
            lambda documents: self.report(
                id, "documents", documents=[[document.id, document.data] for document in documents]
            )
        )

    def do_list(self, id: str, collection: str, options: Any = None) -> None:
        """Create a live list that is reported only by ``show``."""
        live = self._objects[id] = self._db.live(collection, **(options or {}))
        self._report_outcome(id, live.ready())

    def do_show(self, id: str) -> None:
        documents = [[each.id, dict(each.data)] for each in self._objects[id].documents]
        self.report(id, "shown", documents=documents)

    def do_update(self, id: str, options: Any) -> None:
        self._report_outcome(id, self._objects[id].update(**options))

    def do_stop(self, id: str) -> None:
        self._objects[id].stop()

    def do_room(self, id: str, name: str, options: Any = None) -> None:
        room = self._objects[id] = self._db.room(
            name,
            **(options or {}),
            on_resync=lambda reason: self.report(id, "resync", reason=reason),
        )

        async def read() -> None:
            with contextlib.suppress(RealtimeError):
                async for broadcast in room:
                    self.report(
                        id, "message", message=broadcast.message, replayed=broadcast.replayed
                    )

        async def read_presence() -> None:
            with contextlib.suppress(RealtimeError):
                async for presence in room.presence():
                    members = [member["id"] for member in room.members]
                    member_id = presence.member["id"]
                    self.report(id, "presence", event=presence.event, id=member_id, members=members)

        self._spawn(read())
        self._spawn(read_presence())
        self._report_outcome(id, room.ready())

    def do_broadcast(self, id: str, message: Any, tag: str) -> None:
        self._report_outcome(id, self._objects[id].broadcast(message), "sent", tag=tag)

    def do_state(self, id: str, state: Any) -> None:
        self._report_outcome(id, self._objects[id].set_state(state), "state", state=state)

    def do_members(self, id: str) -> None:
        room = self._objects[id]
        members = [dict(member) for member in room.members]
        self.report(id, "members", members=members, participants=room.participants)

    def do_leave(self, id: str) -> None:
        self._objects[id].leave()

    def do_sleep(self, _: Any, seconds: float) -> None:
        self._clock_shift += seconds

    def do_close(self, _: Any) -> None:
        self._spawn(self._db.close())

    async def __aexit__(self, *error: object) -> None:
        if self._db is not None:
            await self._db.close()
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


__all__ = ["BrowserDriver", "Driver", "NodeDriver", "PythonDriver"]

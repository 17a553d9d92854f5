"""The same commands for each client, and the same notes of what it told its program."""

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
from tests.node import need_node
from tests.servers import ROOT

TIMEOUT = 15.0
STATIC = ROOT / "django_cocobase_realtime" / "static" / "django_cocobase_realtime"


class Notes:
    """What was told: an inbox for each ``who``."""

    def __init__(self) -> None:
        self._inboxes: dict[str, asyncio.Queue[dict[str, Any]]] = {}

    def _inbox(self, who: str) -> asyncio.Queue[dict[str, Any]]:
        return self._inboxes.setdefault(who, asyncio.Queue())

    def put(self, note: dict[str, Any]) -> None:
        self._inbox(note.pop("who")).put_nowait(note)

    async def next(self, who: str, what: str, **fields: Any) -> dict[str, Any]:
        """The next note of ``who``, which must be this one."""
        note = await asyncio.wait_for(self._inbox(who).get(), TIMEOUT)
        assert note["what"] == what, note
        assert {key: note.get(key) for key in fields} == fields, note
        return note

    async def until(self, who: str, what: str, **fields: Any) -> dict[str, Any]:
        """The next such note, whatever comes before it."""
        async with asyncio.timeout(TIMEOUT):
            while True:
                note = await self._inbox(who).get()
                if note["what"] == what and {key: note.get(key) for key in fields} == fields:
                    return note

    async def nothing(self, who: str, seconds: float = 0.3) -> None:
        with contextlib.suppress(TimeoutError):
            note = await asyncio.wait_for(self._inbox(who).get(), seconds)
            raise AssertionError(note)


class Driver(Notes):
    """``await driver.do("watch", "w", collection="posts")``."""

    async def do(self, op: str, id: str | None = None, **rest: Any) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Driver:
        return self

    async def __aexit__(self, *error: object) -> None: ...


@functools.cache
def node_with_sockets() -> str:
    node = need_node()
    version = subprocess.run([node, "--version"], capture_output=True, text=True, check=True)
    if tuple(map(int, version.stdout.strip("v\n").split("."))) >= (20, 10):
        return node
    assert not os.environ.get("REQUIRE_SERVERS"), "CI needs Node 20.10 or newer."
    pytest.skip("No Node 20.10 on this machine to run the JavaScript client in.")


class NodeDriver(Driver):
    """The JavaScript client in Node, which has WebSocket from 20.10 on, by a flag until 22."""

    async def __aenter__(self) -> NodeDriver:
        node = node_with_sockets()
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
            self.put(json.loads(line))

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
        left = [
            line for line in errors.decode().splitlines() if line and "Experimental" not in line
        ]
        left = [line for line in left if "--trace-warnings" not in line]
        assert not left, errors.decode()


class BrowserDriver(Driver):
    """The JavaScript client on a page."""

    def __init__(self, page: Any) -> None:
        super().__init__()
        self.page = page

    async def __aenter__(self) -> BrowserDriver:
        self.errors: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        await self.page.expose_function("tell", self.put)
        await self.page.evaluate("""async () => {
            const { Realtime } = await import("/realtime.js");
            const { Driver } = await import("/driver.mjs");
            window.driver = new Driver(Realtime, window.tell);
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
        self._held: dict[str, Any] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._shift = 0.0
        self._db: Realtime | None = None
        monkeypatch.setattr(client_connection, "now", lambda: time.time() + self._shift)

    def tell(self, who: str, what: str, **fields: Any) -> None:
        self.put({"who": who, "what": what, **fields})

    async def do(self, op: str, id: str | None = None, **rest: Any) -> None:
        getattr(self, f"do_{op}")(id, **rest)
        await asyncio.sleep(0)

    def _spawn(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _settle(self, id: str, work: Any, what: str = "ready", **fields: Any) -> None:
        async def settle() -> None:
            try:
                await work
            except RealtimeError as error:
                self.tell(id, "failed", code=error.code, **fields)
            else:
                self.tell(id, what, **fields)

        self._spawn(settle())

    def do_create(self, _: Any, url: str, tokens: Any = None, timeout: float = 8000, luck=0.01):
        async def token() -> str:
            return tokens.pop(0) if len(tokens) > 1 else tokens[0]

        self._db = Realtime(
            url,
            token=token if isinstance(tokens, list) else tokens,
            timeout=timeout / 1000,
            on_status=lambda status, detail: self.tell("db", "status", status=status, **detail),
            on_error=lambda error: self.tell("db", "error", code=error.code),
            random=lambda: luck,
            proxy=None,
        )
        self._db.start()
        self._spawn(self._listen(self._db.messages()))

    async def _listen(self, messages: Any) -> None:
        with contextlib.suppress(RealtimeError):
            async for said in messages:
                self.tell("db", "message", message=said.message)

    def do_watch(self, id: str, collection: str, options: Any = None) -> None:
        watch = self._held[id] = self._db.watch(collection, **(options or {}))

        async def read() -> None:
            try:
                async for event in watch:
                    if event.event == "snapshot":
                        ids = [each.id for each in event.documents]
                        self.tell(id, "snapshot", ids=ids, truncated=event.truncated)
                    elif event.event == "resync":
                        self.tell(id, "resync", reason=event.reason)
                    else:
                        names = ("event", "id", "data", "cursor", "replayed")
                        self.tell(id, "event", **{name: getattr(event, name) for name in names})
            except RealtimeError as error:
                if isinstance(error.code, str):
                    self.tell(id, "error", code=error.code)

        self._spawn(read())
        self._settle(id, watch.ready())

    def do_live(self, id: str, collection: str, options: Any = None) -> None:
        live = self._held[id] = self._db.live(
            collection,
            **(options or {}),
            on_error=lambda error: self.tell(id, "error", code=error.code),
        )
        self._settle(id, live.ready())
        live.subscribe(
            lambda documents: self.tell(
                id, "documents", documents=[[each.id, each.data] for each in documents]
            )
        )

    def do_update(self, id: str, options: Any) -> None:
        self._settle(id, self._held[id].update(**options))

    def do_stop(self, id: str) -> None:
        self._held[id].stop()

    def do_room(self, id: str, name: str, options: Any = None) -> None:
        room = self._held[id] = self._db.room(
            name,
            **(options or {}),
            on_resync=lambda reason: self.tell(id, "resync", reason=reason),
        )

        async def read() -> None:
            with contextlib.suppress(RealtimeError):
                async for said in room:
                    self.tell(id, "message", message=said.message, replayed=said.replayed)

        async def look() -> None:
            with contextlib.suppress(RealtimeError):
                async for presence in room.presence():
                    members = [each["id"] for each in room.members]
                    who = presence.member["id"]
                    self.tell(id, "presence", event=presence.event, id=who, members=members)

        self._spawn(read())
        self._spawn(look())
        self._settle(id, room.ready())

    def do_broadcast(self, id: str, message: Any, tag: str) -> None:
        self._settle(id, self._held[id].broadcast(message), "sent", tag=tag)

    def do_state(self, id: str, state: Any) -> None:
        self._settle(id, self._held[id].set_state(state), "state", state=state)

    def do_members(self, id: str) -> None:
        room = self._held[id]
        members = [dict(each) for each in room.members]
        self.tell(id, "members", members=members, participants=room.participants)

    def do_leave(self, id: str) -> None:
        self._held[id].leave()

    def do_sleep(self, _: Any, seconds: float) -> None:
        self._shift += seconds

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

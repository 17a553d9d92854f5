"""Drive the Python client with the commands of ``driver.mjs``."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import heapq
import logging
import math
import time
from collections.abc import Callable
from typing import Any

import pytest

from django_cocobase_realtime.client import Realtime, RealtimeError
from django_cocobase_realtime.client import connection as client_connection
from django_cocobase_realtime.client.errors import logger as client_logger
from tests.clients.drivers import Driver

# values that commands cannot contain, because they are not JSON or too long; see driver.mjs
VALUES = {
    "$surrogate": "Nice \ud83d",
    "$nul": "a\0b",
    "$nan": math.nan,
    "$big": 2**60,
    "$undefined": object(),
    "$long": "x" * 70_000,
    "$wide": "é" * 40_000,
}


def resolve(value: Any) -> Any:
    """Return a part of a command with the values that its names stand for."""
    if isinstance(value, str):
        return VALUES.get(value, value)
    if isinstance(value, list):
        return [resolve(item) for item in value]
    if isinstance(value, dict):
        return {key: resolve(item) for key, item in value.items()}
    return value


def misbehave(behavior: str | None, documents: Any = ()) -> Any:
    """Do what a listener does wrong after its report: see driver.mjs."""
    if behavior == "throw":
        raise LookupError("listener")
    if behavior == "reject":
        return _reject()
    if behavior == "mutate":
        for document in documents:
            if document.data is not None:
                document.data["n"] = "changed"
    return None


async def _reject() -> None:
    raise LookupError("listener")


def to_json(groups: Any) -> list[dict[str, Any]]:
    """Return the groups of a count as the server sends them, without what was not requested."""
    contents = []
    for group in groups:
        content = {field.name: getattr(group, field.name) for field in dataclasses.fields(group)}
        contents.append({name: value for name, value in content.items() if value != {}})
    return contents


class LineReporter(logging.Handler):
    """Reports the lines that the client logs."""

    def __init__(self, report: Callable[..., None]) -> None:
        super().__init__(logging.DEBUG)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        self._report("debug", "line", text=record.getMessage())


class PythonDriver(Driver):
    """The Python client, in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self._monkeypatch = monkeypatch
        self._objects: dict[str, Any] = {}
        self._calls: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._clock_shift = 0.0
        self._db: Realtime | None = None
        monkeypatch.setattr(client_connection, "now", lambda: time.time() + self._clock_shift)

    def report(self, source: str, kind: str, **fields: Any) -> None:
        self.add({"source": source, "kind": kind, **fields})

    async def do(self, op: str, id: str | None = None, **rest: Any) -> None:
        self._run(op, id, **rest)
        await asyncio.sleep(0)

    def _run(self, op: str, id: str | None = None, **rest: Any) -> None:
        try:
            getattr(self, f"do_{op}")(id, **resolve(rest))
        except (RealtimeError, TypeError, ValueError) as error:
            fields = {"code": getattr(error, "code", None), "tag": rest.get("tag")}
            self.report(id or "db", "failed", **fields, message=str(error))

    def do_batch(self, _: Any, commands: Any) -> None:
        for command in commands:
            self._run(**command)

    def _spawn(self, work: Any) -> None:
        self._tasks.append(asyncio.create_task(work))

    def _report_outcome(self, id: str, work: Any, kind: str = "ready", **fields: Any) -> None:
        async def wait() -> None:
            try:
                await work
            except (RealtimeError, TypeError, ValueError) as error:
                self.report(id, "failed", code=getattr(error, "code", None), **fields)
            else:
                self.report(id, kind, **fields)

        self._spawn(wait())

    def _report_error(self, id: str, error: RealtimeError) -> None:
        fields = {"code": error.code, "origin": getattr(error, "source", None)}
        fields["retry_after"] = error.retry_after_ms
        self.report(id, "error", **fields)
        self.report("errors", "error", **fields)

    def do_create(
        self,
        _: Any,
        url: str,
        tokens: Any = None,
        timeout: float = 8000,
        random: float = 0.01,
        options: Any = None,
        debug: bool = False,
        on_live: Any = (),
        behavior: str | None = None,
        error_behavior: str | None = None,
    ) -> None:
        commands = list(on_live)

        async def token() -> str:
            value = tokens.pop(0) if len(tokens) > 1 else tokens[0]
            if value in ("$throw", "$reject"):
                raise LookupError("no token")
            if value == "$hang":
                await asyncio.Event().wait()
            return value

        def on_status(status: str, detail: Any) -> Any:
            self.report("db", "status", status=status, **detail)
            if status == "live":
                while commands:
                    command = commands.pop(0)
                    self._run(**command)
            return misbehave(behavior)

        def on_error(error: RealtimeError) -> Any:
            self._report_error("db", error)
            return misbehave(error_behavior)

        options = dict(options or {})
        if debug:
            options["debug"] = True
            self._monkeypatch.setattr(client_logger, "level", logging.DEBUG)
            reporter = LineReporter(self.report)
            self._monkeypatch.setattr(client_logger, "handlers", [reporter])
        self._db = Realtime(
            url,
            token=token if isinstance(tokens, list) else tokens,
            timeout=timeout / 1000,
            on_status=on_status,
            on_error=on_error,
            random=lambda: random,
            proxy=None,
            **options,
        )
        self._db.start()
        self._spawn(self._listen(self._db.messages()))

    def do_user(self, _: Any) -> None:
        user = self._db.user
        self.report("db", "user", user=None if user is None else dict(user))

    def do_ready(self, id: str) -> None:
        self._report_outcome(id, self._objects[id].ready())

    async def _listen(self, messages: Any) -> None:
        with contextlib.suppress(RealtimeError):
            async for broadcast in messages:
                self.report("db", "message", message=broadcast.message)

    def do_watch(
        self, id: str, collection: str, options: Any = None, behavior: str | None = None
    ) -> None:
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
                        fields = {name: getattr(event, name) for name in names}
                        fields["data"] = copy.deepcopy(event.data)
                        self.report(id, "event", **fields)
                        with contextlib.suppress(TypeError, LookupError):  # its own mistake
                            misbehave(behavior, [event])
            except RealtimeError as error:
                if isinstance(error.code, str):
                    self._report_error(id, error)

        self._spawn(read())
        self._report_outcome(id, watch.ready())

    def do_mount(self, id: str, collection: str, count: int) -> None:
        for n in range(count):
            self._db.watch(collection, filters={"n": n}).stop()
        self.report(id, "mounted")

    def do_live(
        self,
        id: str,
        collection: str,
        options: Any = None,
        behavior: str | None = None,
        on_error: Any = (),
    ) -> None:
        commands = list(on_error)

        def report_error(error: RealtimeError) -> None:
            self._report_error(id, error)
            while commands:
                self._run(**commands.pop(0))

        live = self._objects[id] = self._db.live(
            collection, **(options or {}), on_error=report_error
        )
        self._report_outcome(id, live.ready())
        self.do_subscribe(id, id, behavior)

    def do_list(self, id: str, collection: str, options: Any = None) -> None:
        """Create a live list that is reported only by ``show``."""
        live = self._objects[id] = self._db.live(collection, **(options or {}))
        self._report_outcome(id, live.ready())

    def do_counts(self, id: str, collection: str, options: Any = None) -> None:
        """Create a count that is reported only by ``show``."""
        count = self._objects[id] = self._db.count(collection, **(options or {}))
        self._report_outcome(id, count.ready())

    def do_show(self, id: str) -> None:
        store = self._objects[id]
        if hasattr(store, "groups"):
            self.report(id, "shown", value=store.value, groups=to_json(store.groups))
            return
        documents = [[each.id, dict(each.data)] for each in store.documents]
        self.report(id, "shown", documents=documents, has_more=store.has_more)

    def do_subscribe(self, id: str, live: str, behavior: str | None = None) -> None:
        store, is_subscribing = self._objects[live], False
        last: Any = ()

        def read(documents: Any) -> Any:
            nonlocal is_subscribing, last
            assert documents is store.documents
            content = [[document.id, copy.deepcopy(document.data)] for document in documents]
            kept = [document.id for document in documents if any(document is old for old in last)]
            last = documents
            more = {"has_more": store.has_more, "next": store.next}
            self.report(id, "documents", documents=content, kept=kept, **more)
            self._calls[id] = self._calls.get(id, 0) + 1
            if (
                behavior == "resubscribe"
                and not is_subscribing
                and documents
                and self._calls[id] < 200
            ):
                is_subscribing = True
                store.subscribe(read)
                is_subscribing = False
            return misbehave(behavior, documents)

        store.subscribe(read)

    def do_more(self, id: str, n: int | None = None) -> None:
        self._report_outcome(id, self._objects[id].more(n), "more")

    def do_count(self, id: str, collection: str, options: Any = None) -> None:
        count = self._objects[id] = self._db.count(
            collection,
            **(options or {}),
            on_error=lambda error: self._report_error(id, error),
        )
        self._report_outcome(id, count.ready())
        last: Any = ()

        def read(groups: Any) -> None:
            nonlocal last
            assert groups is count.groups
            kept = sum(any(group is old for old in last) for group in groups)
            last = groups
            self.report(id, "groups", value=count.value, groups=to_json(groups), kept=kept)

        count.subscribe(read)

    def do_calls(self, id: str) -> None:
        self.report(id, "calls", calls=self._calls.get(id, 0))

    def do_update(self, id: str, options: Any) -> None:
        self._report_outcome(id, self._objects[id].update(**options))

    def do_stop(self, id: str) -> None:
        self._objects[id].stop()

    def do_room(self, id: str, name: str, options: Any = None, late: bool = False) -> None:
        room = self._objects[id] = self._db.room(
            name,
            **(options or {}),
            on_resync=lambda reason: self.report(id, "resync", reason=reason),
        )

        async def read() -> None:
            with contextlib.suppress(RealtimeError):
                if late:
                    await room.ready()
                    await asyncio.sleep(0)  # let the report come first that the room is ready
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
        state = None if room.state is None else dict(room.state)
        self.report(id, "members", members=members, participants=room.participants, state=state)

    def do_leave(self, id: str) -> None:
        if id in self._objects:  # otherwise, the client has refused it
            self._objects[id].leave()

    def do_sleep(self, _: Any, seconds: float) -> None:
        self._clock_shift += seconds

    def do_advance(self, _: Any, seconds: float) -> None:
        self._clock_shift += seconds
        loop = asyncio.get_running_loop()
        for timer in loop._scheduled:
            if timer.when() - loop.time() >= 30:
                timer._when -= seconds
        heapq.heapify(loop._scheduled)

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

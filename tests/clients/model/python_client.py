"""Run the Python client in virtual time, in this process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import random
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

from websockets.exceptions import ConnectionClosedError

from django_cocobase_realtime.client import Realtime, RealtimeError
from django_cocobase_realtime.client import connection as client_connection
from django_cocobase_realtime.client import protocol as client_protocol
from django_cocobase_realtime.client.requests import RequestChannel
from tests.clients.model.clock import VirtualLoop, virtual_time

Report = dict[str, Any]
INTERRUPTING = frozenset({"connect", "out", "hangup", "token"})


class Socket:
    """One connection of the client, in place of that of ``websockets``."""

    def __init__(self, number: int, report: Callable[..., None]) -> None:
        self.number = number
        self.close_code: int | None = None
        self.close_reason = ""
        self.transport = self
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._report = report
        self._frames: deque[str] = deque()
        self._changed = asyncio.Event()
        self._hung_up = False

    # for the client

    async def __aenter__(self) -> Socket:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def send(self, text: str) -> None:
        if self.close_code is not None:
            raise ConnectionClosedError(None, None)
        self._report("out", socket=self.number, frame=json.loads(text))

    async def recv(self) -> str:
        while not self._frames:
            if self.close_code is not None:
                raise ConnectionClosedError(None, None)
            self._changed.clear()
            await self._changed.wait()
        return self._frames.popleft()

    async def __aiter__(self) -> Any:
        while True:
            yield await self.recv()

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self._hang_up(code)

    async def wait_closed(self) -> None: ...

    def abort(self) -> None:
        self._hang_up(1006)

    def _hang_up(self, code: int) -> None:
        if not self._hung_up and self.close_code is None:
            self._hung_up = True
            self._report("hangup", socket=self.number)
        self.end(code)

    # for the model

    def frame(self, text: str) -> None:
        if self.close_code is None:
            self._frames.append(text)
            self._changed.set()

    def end(self, code: int) -> None:
        if not self.opened.done():
            self.opened.set_exception(ConnectionRefusedError("The connection was refused."))
            self.opened.exception()
        if self.close_code is None:
            self.close_code = code
            self._changed.set()


class Connect:
    """The result of ``websockets.connect``."""

    def __init__(self, client: PythonClient, url: str, options: dict[str, Any]) -> None:
        self._client = client
        self._timeout = options.get("open_timeout")

    async def __aenter__(self) -> Socket:
        self._socket = self._client.new_socket()
        try:
            async with asyncio.timeout(self._timeout):
                await self._socket.opened
        except BaseException:
            self._socket.abort()
            raise
        return self._socket

    async def __aexit__(self, *error: object) -> None:
        await self._socket.close()

    def __await__(self) -> Any:
        return self.__aenter__().__await__()


class LogHandler(logging.Handler):
    """Reports what the client and asyncio log as an error."""

    def __init__(self, report: Callable[..., None]) -> None:
        super().__init__(logging.ERROR)
        self._report = report
        self.setFormatter(logging.Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        self._report("log", text=self.format(record))


def content_of(store: Any) -> dict[str, Any]:
    """Return what a list or a count shows, as JSON; groups are sorted by their keys."""
    if hasattr(store, "documents"):
        documents = [[document.id, dict(document.data)] for document in store.documents]
        return {"documents": documents, "more": store.has_more, "next": store.next}
    groups = []
    for group in store.groups:
        values = {name: getattr(group, name) for name in ("key", "sum", "avg", "min", "max")}
        present = {name: dict(value) for name, value in values.items() if value}
        groups.append({"count": group.count, **present})
    groups.sort(key=lambda group: json.dumps(group.get("key")))
    return {"value": store.value, "groups": groups}


def key_of(value: Any) -> Any:
    return value.id if hasattr(value, "id") else json.dumps(value.key)


class PythonClient:
    """A client that is driven by commands, which `run` executes."""

    language = "python"

    def __init__(self) -> None:
        self._reports: list[Report] = []
        self._interrupted = False
        self._stack = contextlib.ExitStack()
        self._handler = LogHandler(self._report)
        for name in ("django_cocobase_realtime.client", "asyncio"):
            logging.getLogger(name).addHandler(self._handler)

    @property
    def now(self) -> float:
        return self._loop.time()

    def create(self, *, url: str, tokens: bool, timeout: float, seed: int) -> None:
        """Start a new history with a new client."""
        self._loop = VirtualLoop()
        self._stack.enter_context(self._running())
        self._commands: list[tuple[str, dict[str, Any]]] = []
        self._sockets: list[Socket] = []
        self._tokens: dict[int, asyncio.Future[str]] = {}
        self._objects: dict[str, Any] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._numbers = random.Random(seed)
        self._options = {"url": url, "token": self._ask_token if tokens else "key"}
        self._timeout = timeout
        self._db: Realtime | None = None

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        connect = lambda url, **options: Connect(self, url, options)  # noqa: E731
        channel = functools.partial(RequestChannel, clock=self._loop.time)
        with (
            virtual_time(self._loop),
            mock.patch.object(client_connection, "connect", connect),
            mock.patch.object(client_protocol, "RequestChannel", channel),
        ):
            yield

    def do(self, op: str, **fields: Any) -> None:
        """Add a command for the next `run`."""
        self._commands.append((op, fields))

    def run(self, until: float) -> list[Report]:
        """Execute the commands, and let time pass; return early if the client sends something."""
        commands, self._commands = self._commands, []
        task = self._loop.create_task(self._execute(commands)) if commands else None
        self._loop.run(until, lambda: self._interrupted)
        if task is not None:
            task.result()
        reports, self._reports = self._reports, []
        self._interrupted = False
        return reports

    def finish(self) -> None:
        """End a history, and report what its tasks have left."""
        self._loop.virtual.is_interrupted = lambda: False
        for _ in range(3):
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run(self.now, lambda: False)
        self._objects.clear()
        self._tokens.clear()
        self._db = None
        self._loop.close()
        self._stack.close()
        self._reports.clear()

    def close(self) -> None:
        for name in ("django_cocobase_realtime.client", "asyncio"):
            logging.getLogger(name).removeHandler(self._handler)

    # reports

    def _report(self, kind: str, **fields: Any) -> None:
        self._reports.append({"kind": kind, "at": self._loop.time(), **fields})
        if kind in INTERRUPTING:
            self._interrupted = True

    def new_socket(self) -> Socket:
        socket = Socket(len(self._sockets), self._report)
        self._sockets.append(socket)
        self._report("connect", socket=socket.number)
        return socket

    async def _ask_token(self) -> str:
        call = len(self._tokens) + 1
        self._tokens[call] = asyncio.get_running_loop().create_future()
        self._report("token", token=call)
        return await self._tokens[call]

    def _on_status(self, status: str, detail: Any) -> None:
        user = (self._db.user or {}).get("id") if self._db is not None else None
        fields = {key: detail[key] for key in ("delay", "code") if key in detail}
        self._report("status", status=status, user=user, **fields)

    def _on_error(self, error: RealtimeError) -> None:
        self._report("error", code=str(error.code), source=getattr(error, "source", None))

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _settle(self, call: int, work: Any) -> None:
        async def wait() -> None:
            try:
                await work
            except RealtimeError as error:
                self._report("settled", call=call, error=str(error.code))
            except Exception as error:
                self._report("settled", call=call, error=repr(error))
            else:
                self._report("settled", call=call, error=None)

        self._spawn(wait())

    def _raise(self) -> None:
        self._report("thrown")
        raise RuntimeError("a mistake of the program")

    # commands

    async def _execute(self, commands: list[tuple[str, dict[str, Any]]]) -> None:
        for op, fields in commands:
            try:
                getattr(self, f"_do_{op}")(**fields)
            except Exception as error:
                code = str(getattr(error, "code", None) or repr(error))
                if "call" in fields:
                    self._report("settled", call=fields["call"], error=code)
                else:
                    self._report("raised", op=op, text=code)
            await asyncio.sleep(0)

    def _do_connect(self) -> None:
        """Connect; a client that was closed is replaced by a new one."""
        if self._db is None or self._db.status == "closed":
            self._objects.clear()
            self._db = Realtime(
                **self._options,
                timeout=self._timeout,
                on_status=self._on_status,
                on_error=self._on_error,
                random=self._numbers.random,
            )
        self._db.start()

    def _do_close(self) -> None:
        if self._db is not None:
            self._spawn(self._db.close())

    @property
    def _client(self) -> Realtime:
        assert self._db is not None
        return self._db

    def _do_live(
        self, id: str, call: int, collection: str, options: dict[str, Any], throws: bool
    ) -> None:
        def on_error(error: RealtimeError) -> None:
            self._report("refused", id=id, code=str(error.code), source=error.source)

        previous: dict[Any, Any] = {}

        def on_change(values: Any) -> None:
            self._report_shown(id, self._objects[id])
            for value in values:
                old = previous.get(key_of(value))
                if old is not value and old == value:
                    self._report("raised", text=f"{value} is equal, and another object")
            previous.clear()
            previous.update((key_of(value), value) for value in values)
            if throws:
                self._raise()

        options = dict(options)
        subscribe = self._client.count if options.pop("is_count", False) else self._client.live
        store = self._objects[id] = subscribe(collection, **options, on_error=on_error)
        store.subscribe(on_change)
        self._settle(call, store.ready())

    _do_count = _do_live

    def _report_shown(self, id: str, store: Any) -> None:
        shown = content_of(store)
        shown.pop("next", None)
        user = (self._client.user or {}).get("id")
        self._report("shown", id=id, shown=shown, user=user)

    def _do_watch(
        self, id: str, call: int, collection: str, options: dict[str, Any], throws: bool
    ) -> None:
        watch = self._objects[id] = self._client.watch(collection, **options)

        async def read() -> None:
            try:
                async for event in watch:
                    if event.event == "resync":
                        self._report("resync", id=id, reason=event.reason)
                    else:
                        fields = {"document": event.id, "cursor": event.cursor}
                        self._report("event", id=id, event=event.event, **fields)
            except RealtimeError as error:
                self._report("refused", id=id, code=str(error.code))

        self._spawn(read())
        self._settle(call, watch.ready())

    def _do_update(self, id: str, call: int, options: dict[str, Any]) -> None:
        self._settle(call, self._objects[id].update(**options))

    def _do_more(self, id: str, call: int, n: int) -> None:
        self._settle(call, self._objects[id].more(n))

    def _do_ready(self, id: str, call: int) -> None:
        self._settle(call, self._objects[id].ready())

    def _do_stop(self, id: str) -> None:
        self._objects[id].stop()

    def _do_room(
        self, id: str, call: int, name: str, options: dict[str, Any], throws: bool
    ) -> None:
        def on_resync(reason: str) -> None:
            self._report("resync", id=id, reason=reason)
            if throws:
                self._raise()

        room = self._objects[id] = self._client.room(name, **options, on_resync=on_resync)

        async def read(messages: Any) -> None:
            with contextlib.suppress(RealtimeError):
                async for message in messages:
                    self._report("message", id=id, message=message.message)

        self._spawn(read(room.messages()))
        self._settle(call, room.ready())

    def _do_broadcast(self, id: str, call: int, message: Any) -> None:
        self._settle(call, self._objects[id].broadcast(message))

    def _do_state(self, id: str, call: int, state: Any) -> None:
        self._settle(call, self._objects[id].set_state(state))

    def _do_leave(self, id: str) -> None:
        self._objects[id].leave()

    def _do_inspect(self) -> None:
        objects: dict[str, Any] = {}
        for id, item in self._objects.items():
            if hasattr(item, "changes"):
                objects[id] = content_of(item)
            elif hasattr(item, "members"):
                objects[id] = [dict(member) for member in item.members]
        db = self._client
        user = (db.user or {}).get("id")
        self._report("inspect", objects=objects, status=db.status, user=user, timers=0)

    def _do_token(self, token: int, error: str | None = None) -> None:
        future = self._tokens[token]
        if future.done():
            return
        if error is not None:
            future.set_exception(RuntimeError(error))
        else:
            future.set_result("token")

    def _do_open(self, socket: int) -> None:
        if not self._sockets[socket].opened.done():
            self._sockets[socket].opened.set_result(None)

    def _do_frame(self, socket: int, text: str) -> None:
        self._sockets[socket].frame(text)

    def _do_end(self, socket: int, code: int) -> None:
        self._sockets[socket].end(code)

"""nginx with the documented configuration, in front of servers that are restarted."""

import asyncio
import contextlib
import re
import signal
import threading
from collections import Counter

import httpx
import pytest
from django.db import connection

from django_cocobase_realtime.client import Realtime
from django_cocobase_realtime.conf import conf
from tests.app.models import Post
from tests.support.nginx import Nginx, documented_configuration, require_nginx
from tests.support.threads import call

pytestmark = pytest.mark.server
SETTINGS = {
    "TRUSTED_PROXIES": ["127.0.0.1"],
    "LOG": {"POLL": 0.2},
    # all clients of this test have one address
    "LIMITS": {"unauthenticated_per_address": 100},
}
CLIENTS = 20
PATHS = ["/live", "/realtime/health", "/realtime/ready"]


@contextlib.contextmanager
def proxy(folder, ports):
    nginx = Nginx(folder, ports)
    nginx.start()
    try:
        yield nginx
    finally:
        nginx.stop()


def restart(server):
    """Stop a server as systemd does, start it, and wait until it is ready, as the guide says."""
    server.signal(signal.SIGTERM)
    server.process.wait(20)
    server.start()


class Writer(threading.Thread):
    """Creates posts with consecutive numbers, until it is stopped."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.over = threading.Event()

    def run(self):
        while not self.over.wait(0.03):
            Post.objects.create(title="numbered", views=self.count)
            self.count += 1
        connection.close()

    def stop(self):
        self.over.set()
        self.join(20)


class Subscriber:
    """A client with a subscription, and the numbers of the posts that it received."""

    def __init__(self, nginx, api_key):
        self.connections = 0
        self.received = []
        self.db = Realtime(
            f"wss://127.0.0.1:{nginx.port}/realtime",
            token=api_key,
            proxy=None,
            ssl=nginx.tls,
            on_status=self._count,
        )

    def _count(self, status, detail):
        self.connections += status == "live"

    async def __aenter__(self):
        await self.db.__aenter__()
        self.watch = await self.db.watch("posts").ready()
        self.task = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *error):
        await self.db.close()
        await self.task

    async def _read(self):
        async for event in self.watch:
            # a "resync" would mean that events were missed
            self.received.append(event.data["views"] if event.event == "created" else event.event)


async def request_pages(nginx, answers):
    """Request pages one after the other, and count the statuses."""
    async with httpx.AsyncClient(base_url=nginx.url, verify=nginx.tls, trust_env=False) as http:
        while True:
            for path in PATHS:
                response = await http.get(path, timeout=20)
                answers[path, response.status_code] += 1
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_two_rolling_restarts_lose_no_request_and_no_event(serve, api_key, tmp_path, kind):
    require_nginx()
    servers = await asyncio.gather(*(call(lambda: serve(kind, settings=SETTINGS)) for _ in "12"))
    answers = Counter()
    writer = Writer()
    async with contextlib.AsyncExitStack() as stack:
        nginx = stack.enter_context(proxy(tmp_path, tuple(server.port for server in servers)))
        subscribers = [
            await stack.enter_async_context(Subscriber(nginx, api_key)) for _ in range(CLIENTS)
        ]
        visitors = [asyncio.create_task(request_pages(nginx, answers)) for _ in range(3)]
        writer.start()
        stack.push_async_callback(call, writer.stop)
        for server in [*servers, *servers]:
            await call(restart, server)
        await call(writer.stop)
        for visitor in visitors:
            visitor.cancel()
        failures = await asyncio.gather(*visitors, return_exceptions=True)
        assert all(isinstance(failure, asyncio.CancelledError) for failure in failures), failures
        assert set(answers) == {(path, 200) for path in PATHS}
        assert "no live upstreams" not in nginx.errors
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20):
                while any(len(each.received) < writer.count for each in subscribers):
                    await asyncio.sleep(0.05)
        for subscriber in subscribers:
            assert subscriber.received == list(range(writer.count))
            assert subscriber.connections >= 3


class Upstream:
    """A scripted server: it records the requests it reads, and answers them or only disconnects."""

    def __init__(self, *, answers):
        self.answers = answers
        # (method, path, headers) of the requests
        self.requests = []

    async def __aenter__(self):
        self.server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *error):
        self.server.close()

    def read(self, method):
        return [path for requested, path, _ in self.requests if requested == method]

    async def _handle(self, reader, writer):
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        method, path, _ = lines[0].split()
        self.requests.append((method, path, httpx.Headers([x.split(": ") for x in lines[1:-1]])))
        if self.answers:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def open_proxy(folder, *upstreams):
    """Start nginx in front of the upstreams, and return it and an HTTP client for it."""
    with contextlib.ExitStack() as stack:
        nginx = await call(lambda: stack.enter_context(proxy(folder, [u.port for u in upstreams])))
        options = {"base_url": nginx.url, "verify": nginx.tls, "trust_env": False, "timeout": 20}
        async with httpx.AsyncClient(**options) as http:
            yield nginx, http


async def test_requests_that_may_have_had_an_effect_are_not_repeated(tmp_path):
    require_nginx()
    async with (
        Upstream(answers=False) as broken,
        Upstream(answers=True) as working,
        open_proxy(tmp_path, broken, working) as (_, http),
    ):
        paths = [f"/{number}" for number in range(8)]
        for path in paths:
            assert (await http.get(path)).text == "ok"
        assert sorted(working.read("GET")) == paths
        assert broken.read("GET")  # these were repeated

        posts = {path: (await http.post(path)).status_code for path in paths}
        assert broken.read("POST")
        assert posts == dict.fromkeys(working.read("POST"), 200) | dict.fromkeys(
            broken.read("POST"), 502
        )
        assert sorted(working.read("POST") + broken.read("POST")) == paths

        broken.server.close()  # connections are refused, so that nothing was sent
        working.requests.clear()
        for path in paths:
            assert (await http.post(path)).text == "ok"
        assert working.read("POST") == paths


async def test_headers_of_clients_are_replaced_and_files_are_served(tmp_path):
    require_nginx()
    async with (
        Upstream(answers=True) as one,
        Upstream(answers=True) as two,
        open_proxy(tmp_path, one, two) as (nginx, http),
    ):
        invented = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "ftp"}
        await http.get("/", headers=invented)
        await http.get("/", headers=invented | {"Connection": "upgrade", "Upgrade": "echo"})
        (nginx.folder / "static" / "app.js").write_text("static")
        assert (await http.get("/static/app.js")).text == "static"
    plain, upgraded = [headers for upstream in (one, two) for *_, headers in upstream.requests]
    if "Upgrade" in plain:
        plain, upgraded = upgraded, plain
    for headers in (plain, upgraded):
        assert headers["X-Forwarded-For"] == "127.0.0.1"
        assert headers["X-Forwarded-Proto"] == "https"
        assert headers["Host"] == f"127.0.0.1:{nginx.port}"
    assert plain["Connection"] == "close"
    assert (upgraded["Connection"], upgraded["Upgrade"]) == ("upgrade", "echo")


def test_proxy_waits_longer_than_the_heartbeat():
    (timeout,) = re.findall(r"proxy_read_timeout (\d+)s;", documented_configuration())
    assert int(timeout) > conf.heartbeat

"""nginx with the documented configuration, in front of servers that are restarted."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys

import httpx
import pytest
from django.db import connections

from django_cocobase_realtime.conf import conf
from tests.support.nginx import DocumentedNginx, documented_configuration, require_nginx
from tests.support.servers import ROOT
from tests.support.threads import call

pytestmark = pytest.mark.server


@contextlib.contextmanager
def proxy(folder, ports):
    nginx = DocumentedNginx(folder, ports)
    nginx.start()
    try:
        yield nginx
    finally:
        nginx.stop()


@pytest.mark.skipif(
    connections["default"].vendor != "sqlite", reason="Does not depend on the database."
)
@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
def test_rolling_restart_loses_no_request_no_event_and_no_member(kind):
    """A small run of the benchmark, whose docstring describes what happens."""
    require_nginx()
    environment = {key: value for key, value in os.environ.items() if "REALTIME_TEST" not in key}
    command = [sys.executable, "-m", "benchmarks.rolling_restart", "--discard", "--server", kind]
    completed = subprocess.run(
        [*command, "--clients=60", "--drain=2"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    output = completed.stdout + completed.stderr
    assert completed.returncode == 0, output
    moved, posts = (
        [int(number) for number in re.findall(pattern, output)]
        for pattern in (r": (\d+) clients moved", r"; (\d+) accepted before SIGTERM")
    )
    assert moved[1] == 60, output  # since the first restart, all were on the second server
    assert all(posts), output


class Upstream:
    """A scripted server: it records the requests it reads, and answers them all with one status.

    With the status None it only disconnects.
    """

    def __init__(self, status):
        self.status = status
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
        if self.status is not None:
            writer.write(b"HTTP/1.1 %d -\r\nContent-Length: 2\r\n\r\nok" % self.status)
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
        Upstream(None) as broken,
        Upstream(200) as working,
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


async def test_handshakes_refused_by_a_stopping_server_go_to_the_other(tmp_path):
    """Only these, and GETs: a POST that was answered with 503 may have had an effect."""
    require_nginx()
    async with (
        Upstream(503) as stopping,
        Upstream(200) as working,
        open_proxy(tmp_path, stopping, working) as (_, http),
    ):
        handshake = {"Connection": "upgrade", "Upgrade": "websocket"}
        paths = [f"/{number}" for number in range(8)]
        for path in paths:
            headers = handshake if path > "/3" else None
            assert (await http.get(path, headers=headers)).status_code == 200
        assert sorted(working.read("GET")) == paths
        assert set(stopping.read("GET")) & {"/0", "/1", "/2", "/3"}
        assert set(stopping.read("GET")) & {"/4", "/5", "/6", "/7"}

        posts = {path: (await http.post(path)).status_code for path in paths}
        assert stopping.read("POST")
        assert posts == dict.fromkeys(working.read("POST"), 200) | dict.fromkeys(
            stopping.read("POST"), 503
        )
        assert sorted(working.read("POST") + stopping.read("POST")) == paths

        working.status = 503  # also of the site's own views, for example during maintenance
        assert (await http.get("/")).status_code == 503


async def test_headers_of_clients_are_replaced_and_files_are_served(tmp_path):
    require_nginx()
    async with (
        Upstream(200) as one,
        Upstream(200) as two,
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

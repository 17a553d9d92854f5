"""WebSocket handshakes that arrive as ordinary HTTP requests: status 426, and a warning."""

import asyncio
import time
from contextlib import ExitStack

import httpx
import pytest
import websockets
from asgiref.sync import async_to_sync
from django.test import AsyncClient, Client
from websockets.exceptions import InvalidStatus

from django_cocobase_realtime.client import Realtime
from django_cocobase_realtime.client.backoff import UNAVAILABLE_DELAY
from django_cocobase_realtime.transport import missing_upgrade
from tests.support.nginx import WRONG_SITE, Nginx, require_nginx
from tests.support.threads import call

HANDSHAKE = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
PATHS = ["", "collections/posts", "collections/a/b", "rooms/lobby/", "broadcast", "broadcast/"]


def get(kind, path, headers=None, **options):
    """Request a path under ASGI or WSGI."""
    if kind == "wsgi":
        return Client(**options).get(path, headers=headers)
    return async_to_sync(AsyncClient(**options).get)(path, headers=headers)


def warnings(caplog):
    names = ("django_cocobase_realtime", "django.request")
    return [r.getMessage() for r in caplog.records if r.name.startswith(names)]


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_handshake_without_upgrade_is_answered_and_logged_once(kind, caplog):
    via = {"Via": "1.1 edge-7\x1b[2J", "Connection": "close", "X-Forwarded-For": "192.0.2.7"}
    for path in PATHS:
        response = get(kind, f"/realtime/{path}", {**HANDSHAKE, **via})
        assert response.status_code == 426
        assert "Configure the proxy" in response.content.decode()
        # WSGI forbids these headers
        expected = ("websocket", "Upgrade") if kind == "asgi" else (None, None)
        assert (response.get("Upgrade"), response.get("Connection")) == expected
    (warning,) = warnings(caplog)
    for part in ("'/realtime/'", "127.0.0.1", "via: 1.1 edge-7", "x-forwarded-for: 192.0.2.7"):
        assert part in warning
    assert "Upgrade and Connection headers. See" in warning
    assert "docs/how-to/deploy.md" in warning
    assert "\x1b" not in warning


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_visit_of_the_address_is_answered_without_a_warning(kind, caplog):
    response = get(kind, "/realtime/")
    assert response.status_code == 426
    assert "accepts WebSockets only" in response.content.decode()
    assert get(kind, "/realtime/health", HANDSHAKE | {"Upgrade": "h2c"}).status_code == 200
    assert len(warnings(caplog)) == 1  # that of the second request
    # other paths, and the endpoints of this app, are not concerned
    caplog.clear()
    missing_upgrade.repeated_log.clear()
    assert get(kind, "/live", HANDSHAKE).status_code == 200
    assert get(kind, "/realtimes", HANDSHAKE).status_code == 404
    assert warnings(caplog) == ["Not Found: /realtimes"]


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_other_methods_and_other_paths_below_a_prefix_are_not_ours(kind, caplog, settings):
    settings.MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
    client = Client() if kind == "wsgi" else AsyncClient()
    request = client.head if kind == "wsgi" else async_to_sync(client.head)
    assert request("/realtime", headers=HANDSHAKE)["Location"] == "/realtime/"
    settings.FORCE_SCRIPT_NAME = "/app"
    assert get("asgi", "/apprealtime", HANDSHAKE).status_code == 404
    assert warnings(caplog) == ["Not Found: /apprealtime"]
    assert get("asgi", "/app/realtime", HANDSHAKE).status_code == 426
    assert "for '/realtime' arrived" in warnings(caplog)[1]


def test_forged_handshakes_of_one_peer_do_not_hide_those_of_another(caplog):
    for peer in ("192.0.2.1", "192.0.2.1", "192.0.2.2", *(f"198.51.100.{n}" for n in range(30))):
        Client(REMOTE_ADDR=peer).get("/realtime/", headers=HANDSHAKE)
    peers = [warning.split("came from '")[1].split("'")[0] for warning in warnings(caplog)]
    assert peers[:2] == ["192.0.2.1", "192.0.2.2"]
    assert len(peers) == 10


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_handshake_without_slash_is_not_redirected(kind, caplog, settings):
    settings.MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
    assert get(kind, "/realtime", HANDSHAKE).status_code == 426
    assert "for '/realtime' arrived" in warnings(caplog)[0]
    # as Django does it, in a browser
    assert get(kind, "/realtime")["Location"] == "/realtime/"


@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_handshake_that_reaches_no_view_is_logged(kind, caplog, settings):
    settings.MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
    missing_upgrade.repeated_log.clear()
    caplog.clear()
    # nginx sends the name of the upstream by default
    assert get(kind, "/realtime/", HANDSHAKE | {"Host": "mysite"}).status_code == 400
    assert "'host: mysite'" in warnings(caplog)[0]


@pytest.mark.parametrize(
    ("headers", "cause"),
    [
        ({"Upgrade": "websocket", "Connection": "close"}, "the client's Connection header."),
        ({"Upgrade": "websocket", "Connection": "Upgrade"}, "does not accept WebSockets"),
        ({"Connection": "Upgrade"}, "the client's Upgrade and Connection headers."),
    ],
)
def test_warning_names_the_cause(caplog, headers, cause):
    response = get("wsgi", "/realtime/", HANDSHAKE | headers)
    assert cause in response.content.decode()
    assert cause in warnings(caplog)[0]


async def test_http2_handshake_has_no_key_and_gets_no_connection_headers(caplog):
    """As in RFC 8441, if a proxy converts CONNECT into GET. HTTP/2 forbids the headers."""
    headers = {"Sec-WebSocket-Version": "13"}
    client = AsyncClient(http_version="2", root_path="/app")
    response = await client.get("/app/realtime/", headers=headers)
    assert response.status_code == 426
    assert (response.get("Upgrade"), response.get("Connection")) == (None, None)
    assert "with 'HTTP/2' and" in warnings(caplog)[0]


@pytest.mark.server
async def test_proxy_without_upgrade_headers_is_named_to_operator_and_client(serve, tmp_path):
    """A real nginx as simple tutorials configure it, in front of daphne and uvicorn."""
    require_nginx()
    kinds = ["daphne", "uvicorn"]
    servers = await asyncio.gather(*(call(lambda kind=kind: serve(kind)) for kind in kinds))
    for kind, server in zip(kinds, servers, strict=True):
        (tmp_path / kind).mkdir()
        with ExitStack() as stack:
            site = WRONG_SITE.replace("{upstream}", str(server.port))
            nginx = Nginx(tmp_path / kind, site)
            stack.callback(nginx.stop)
            await call(nginx.start)
            await _try_clients(f"127.0.0.1:{nginx.port}")
        log = server.log.read_text()
        assert log.count("arrived as an ordinary HTTP request") == 1
        assert "came from '127.0.0.1' with 'HTTP/1.0' and ['host: 127.0.0.1:" in log


async def _try_clients(address):
    for path in ("realtime/", "realtime/rooms/lobby", "realtime/broadcast"):
        with pytest.raises(InvalidStatus) as refused:
            await websockets.connect(f"ws://{address}/{path}", proxy=None)
        assert refused.value.response.status_code == 426
    async with httpx.AsyncClient(trust_env=False) as http:
        assert "accepts WebSockets only" in (await http.get(f"http://{address}/realtime/")).text
    errors, delays = [], []
    db = Realtime(
        f"ws://{address}/realtime/",
        proxy=None,
        on_error=errors.append,
        on_status=lambda status, detail: delays.append(detail.get("delay")),
    )
    db.start()
    began = time.monotonic()
    while not any(delays):
        assert time.monotonic() - began < 10
        await asyncio.sleep(0.02)
    await db.close()
    (error,) = errors
    assert error.code == "upgrade_required"
    assert "proxy" in str(error)
    assert max(filter(None, delays)) >= UNAVAILABLE_DELAY

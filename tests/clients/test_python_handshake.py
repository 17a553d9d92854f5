"""The Python client and servers that do not accept it: mistakes are raised, outages waited out."""

import asyncio
import ssl
import threading
import time

import pytest
from websockets.asyncio.server import serve

from django_cocobase_realtime.client import Realtime, RealtimeError
from tests.clients.scripted_server import ScriptedServer


class RefusingServer:
    """Answers each handshake with the next of some statuses, and then accepts all."""

    def __init__(self, *statuses, headers=()):
        self.statuses = list(statuses)
        self.headers = dict(headers)
        self.count = 0

    def _refuse(self, connection, request):
        self.count += 1
        if not self.statuses:
            return None
        response = connection.respond(self.statuses.pop(0), "No.\n")
        response.headers.update(self.headers)
        return response

    async def __aenter__(self):
        async def authenticate(socket):
            await socket.recv()
            await socket.send('{"type": "authenticated", "id": 1, "connection": "c"}')
            await socket.wait_closed()

        self._server = await serve(authenticate, "127.0.0.1", 0, process_request=self._refuse)
        self.url = f"ws://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/"
        return self

    async def __aexit__(self, *error):
        self._server.close()
        await self._server.wait_closed()


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_refused_first_handshake_raises_at_once(status):
    errors, statuses = [], []
    async with RefusingServer(status) as server:
        db = Realtime(
            server.url,
            proxy=None,
            on_error=errors.append,
            on_status=lambda status, detail: statuses.append((status, detail.get("code"))),
        )
        db.start()
        watch = db.watch("posts")
        with pytest.raises(RealtimeError, match=str(status)) as raised:
            await asyncio.wait_for(db.connected(), 5)
        assert (raised.value.code, raised.value.source) == (status, "connection")
        with pytest.raises(RealtimeError):
            await anext(watch)
        assert statuses == [("connecting", None), ("closed", status)]
        assert [error.code for error in errors] == [status]
        assert server.count == 1
        await db.close()


@pytest.mark.parametrize("status", [500, 502, 503, 429])
async def test_failing_server_is_tried_again(status):
    async with RefusingServer(status) as server:
        async with asyncio.timeout(5), Realtime(server.url, proxy=None, random=lambda: 0.01):
            pass
        assert server.count == 2


async def test_retry_after_of_a_busy_server_is_kept():
    delays = []
    async with RefusingServer(503, headers={"Retry-After": "2"}) as server:
        db = Realtime(
            server.url,
            proxy=None,
            random=lambda: 0.0,
            on_status=lambda status, detail: delays.append(detail.get("delay")),
        )
        db.start()
        await asyncio.sleep(0.5)
        assert delays[-1] == 2
        await db.close()


async def test_address_that_was_right_is_not_given_up():
    """A proxy may answer 404 while servers are replaced."""
    errors = []
    async with ScriptedServer() as server:
        db = Realtime(server.url, proxy=None, on_error=errors.append, random=lambda: 0.0)
        db.start()
        connection = await server.accept_authenticated()
        await db.connected()
        server.refusal = 404
        connection.abort()
        async with asyncio.timeout(5):
            while not errors:
                await asyncio.sleep(0.02)
        assert (errors[0].code, db.status) == (404, "waiting")
        await db.close()


async def test_invalid_certificate_raises_at_once(tmp_path):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    make_certificate(tmp_path / "key.pem", tmp_path / "cert.pem")
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    async with serve(lambda socket: None, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(RealtimeError) as raised:
            async with asyncio.timeout(5), Realtime(f"wss://127.0.0.1:{port}/", proxy=None):
                pass
        assert raised.value.code == "invalid_certificate"
        assert isinstance(raised.value.__cause__, ssl.SSLCertVerificationError)


def make_certificate(key, certificate):
    from datetime import UTC, datetime, timedelta

    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC).replace(tzinfo=None)
    builder = x509.CertificateBuilder(name, name, private.public_key(), 1, now)
    signed = builder.not_valid_after(now + timedelta(days=1)).sign(private, hashes.SHA256())
    pem = serialization.Encoding.PEM
    certificate.write_bytes(signed.public_bytes(pem))
    plain = serialization.NoEncryption()
    key.write_bytes(private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))


@pytest.mark.parametrize(
    ("options", "hint"),
    [({"tokn": "key"}, "'token'"), ({"additional_header": {}}, "'additional_headers'")],
)
def test_misspelt_option_raises(options, hint):
    with pytest.raises(TypeError, match=f"unexpected keyword argument .*{hint}"):
        Realtime("ws://127.0.0.1/", **options)


@pytest.mark.parametrize("option", ["ssl", "server_hostname", "proxy", "additional_headers"])
def test_options_of_websockets_are_accepted(option):
    Realtime("wss://127.0.0.1/", **{option: None})


@pytest.mark.parametrize(
    "url", ["example.com/realtime", "ftp://example.com", "wss://", "ws://[", "", "//example.com"]
)
def test_wrong_address_raises(url):
    with pytest.raises(ValueError, match="URL"):
        Realtime(url)


async def test_option_with_a_wrong_value_raises_when_connecting():
    db = Realtime("ws://127.0.0.1:9/", proxy=None, server_hostname=7, ssl=True, on_error=print)
    db.start()
    with pytest.raises(RealtimeError):
        await asyncio.wait_for(db.connected(), 5)


@pytest.mark.parametrize("host", ["nowhere.invalid", "127.0.0.1:9"])
async def test_server_that_is_not_found_is_waited_for(host):
    statuses = []
    db = Realtime(
        f"ws://{host}/", proxy=None, on_status=lambda status, detail: statuses.append(status)
    )
    db.start()
    async with asyncio.timeout(8):
        while statuses[-1:] != ["waiting"]:
            await asyncio.sleep(0.02)
    await db.close()


def never_return():
    threading.Event().wait()


async def hang():
    await asyncio.Event().wait()


async def cancel():
    raise asyncio.CancelledError


def stop():
    raise StopIteration


@pytest.mark.parametrize("token", [never_return, hang, cancel, stop, lambda: 7, lambda: hang()])
async def test_token_function_that_fails_is_reported_and_called_again(token):
    errors = []
    db = Realtime(
        "ws://127.0.0.1:9/",
        token=token,
        timeout=0.2,
        proxy=None,
        on_error=errors.append,
        random=lambda: 0.01,
    )
    db.start()
    async with asyncio.timeout(5):
        while len(errors) < 2:
            await asyncio.sleep(0.02)
    assert {(error.code, error.source) for error in errors} == {("not_connected", "token")}
    began = time.monotonic()
    await db.close()
    assert time.monotonic() - began < 1


async def test_token_function_may_block_without_blocking_the_loop():
    async with ScriptedServer() as server:

        def token():
            time.sleep(0.5)
            return "slow"

        db = Realtime(server.url, token=token, proxy=None)
        db.start()
        began = time.monotonic()
        await asyncio.sleep(0.05)
        assert time.monotonic() - began < 0.4
        connection = await server.accept_authenticated()
        assert connection.auth["token"] == "slow"
        await db.close()


async def test_token_function_may_return_none():
    async with ScriptedServer() as server:
        db = Realtime(server.url, token=lambda: None, proxy=None)
        db.start()
        assert "token" not in (await server.accept_authenticated()).auth
        await db.close()

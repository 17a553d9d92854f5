"""Forged credentials and cursors."""

import asyncio
import base64
import itertools
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.support.threads import call
from tests.support.tokens import KEY, create_token

from .helpers import attack, connect

pytestmark = pytest.mark.server
SECRET = "xyzzy"


async def try_token(url, token):
    """Return the error and the close code for a token."""
    async with attack(url) as client:
        await client.send({"type": "auth", "token": token})
        frame = await client.receive()
        return frame, await client.closed()


async def test_forged_token_is_never_reported_as_expired(start, user):
    """Otherwise clients would ask for new tokens again and again, and strangers learn claims."""
    server = await start()
    now = int(time.time())
    claims = {"sub": str(user.pk), "exp": now - 60}
    forged = [
        jwt.encode({**claims, "exp": exp}, "another-secret-of-more-than-32-bytes!!", "HS256")
        for exp in (now - 60, now + 60)
    ]
    answers = [await try_token(server.socket_url, token) for token in forged]
    for frame, code in answers:
        assert frame["code"] == "authentication_failed"
        assert code == 4500
    texts = [json.dumps({**frame, "id": None}) for frame, _ in answers]
    assert texts[0] == texts[1]
    frame, _ = await try_token(server.socket_url, jwt.encode(claims, KEY, "HS256"))
    assert frame["type"] == "error"


class KeyServer:
    """Serves one public key, and counts the requests."""

    def __init__(self):
        self.private = rsa.generate_private_key(65537, 2048)
        self.requests = 0
        public = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        body = json.dumps({"keys": [{**public, "kid": "good", "use": "sig"}]}).encode()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.requests += 1
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def sign(self, subject, kid="good", key=None):
        claims = {"sub": str(subject), "exp": int(time.time()) + 600}
        return jwt.encode(claims, key or self.private, "RS256", headers={"kid": kid})

    def stop(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def key_server():
    server = KeyServer()
    yield server
    server.stop()


async def test_tokens_with_unknown_key_ids_shut_out_no_user(start, user, key_server):
    server = await start(
        JWT={"JWKS_URL": key_server.url, "ALGORITHMS": ["RS256"]},
        LIMITS={"failed_auths_per_minute": 1000},
    )
    stranger = rsa.generate_private_key(65537, 2048)
    numbers = itertools.count()

    async def attack_until(over):
        while not over.is_set():
            kid = f"unknown-{next(numbers)}"
            frame, code = await try_token(server.socket_url, key_server.sign(1, kid, stranger))
            # 4101: the key could not be looked up yet
            assert code in (4500, 4101), (frame, code)

    over = asyncio.Event()
    attackers = [asyncio.create_task(attack_until(over)) for _ in range(3)]
    try:
        for _ in range(10):
            async with connect(server.socket_url, key_server.sign(user.pk)) as client:
                assert (await client.request({"type": "ping"}))["type"] == "pong"
            await asyncio.sleep(0.1)
    finally:
        over.set()
        await asyncio.gather(*attackers)
    assert next(numbers) > 10
    assert key_server.requests <= 5


def replace_character(cursor, index):
    """Replace one character of a cursor by another one of Base64."""
    other = "B" if cursor[index] == "A" else "A"
    return cursor[:index] + other + cursor[index:][1:]


async def test_forged_cursor_is_answered_with_resync(start, api_key):
    """A cursor that the server did not make names no position: the client loads the data again."""
    server = await start()
    async with connect(server.socket_url, api_key) as client:
        reply = await client.subscribe("posts")
        other = await client.subscribe("messages")
    cursor = reply["cursor"]
    await call(server.post, "/posts", [{"title": SECRET} for _ in range(3)])
    forged = {
        **{str(n): replace_character(cursor, n) for n in range(0, len(cursor) - 1, 3)},
        "shorter": cursor[:-4],
        "longer": cursor + "AAAA",
        "another collection's": other["cursor"],
        "empty": "",
        "text": "x" * 100,
        "not ASCII": "é" * 50,
        "too long": "A" * 5000,
    }
    for name, value in forged.items():
        async with attack(server.socket_url, api_key) as client:
            options = {"since": value, "scope": reply["scope"]}
            answer = await client.request({"type": "subscribe", "collection": "posts", **options})
            if answer["type"] == "error":
                assert answer["code"] == "bad_request", name
            else:
                assert answer["resumed"] is False, name
                assert answer["resync"]["reason"] == "invalid_cursor", name
                assert SECRET not in json.dumps(answer)
            assert await client.receive_nothing(0.1), name


async def test_credentials_of_any_form_are_refused_with_a_code(start, user):
    server = await start(LIMITS={"failed_auths_per_minute": 1000})
    good = create_token(user)
    head, body, signature = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    tokens = [
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        f"{head}.{body}.",
        f"{head}..{signature}",
        f"{head}.{body}.{signature[:-1]}",
        f"{body}.{head}.{signature}",
        "....",
        "crk__",
        "crk_12345678_" + "x" * 43,
        "crk_" + "é" * 8 + "_" + "x" * 43,
        "\x00",
        "😀" * 900,
        create_token(user, seconds=-60),
        create_token("9" * 400),
        create_token(-1),
    ]
    for token in tokens:
        async with attack(server.socket_url) as client:
            await client.send({"type": "auth", "token": token})
            frame = await client.receive()
            assert frame["type"] == "error", (token, frame)
            codes = ("authentication_failed", "bad_request", "too_large")
            assert frame["code"] in codes, (token, frame)
            if frame["code"] == "authentication_failed":
                assert await client.closed() == 4500, token


async def test_subject_that_is_not_the_key_of_a_user_is_no_user(start, user):
    """Another issuer's user "01" is not Django's user 1."""
    server = await start()
    for form in (" {}", "{} ", "0{}", "+{}", "0_{}"):
        async with attack(server.socket_url) as client:
            token = create_token(form.format(user.pk))
            reply = await client.request({"type": "auth", "token": token})
            assert reply["type"] == "error", (form, reply)

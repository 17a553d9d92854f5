"""The keys that verify tokens: rotation, expiry, slow and absent servers, invented key ids."""

import asyncio
import os
import threading
import time
import warnings
from datetime import UTC, datetime, timedelta

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.db import connections

from django_cocobase_realtime.auth import jwks, throttling
from django_cocobase_realtime.auth.backends import (
    AuthenticationPostponed,
    AuthenticationUnavailable,
    NotYetValid,
    authenticate,
)
from django_cocobase_realtime.auth.throttling import AuthThrottle
from tests.support.key_server import KeyServer, private_key

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def throttle(monkeypatch):
    fresh = AuthThrottle()
    monkeypatch.setattr(throttling, "auth_throttle", fresh)
    monkeypatch.setattr("django_cocobase_realtime.consumers.sdk_consumer.auth_throttle", fresh)
    return fresh


@pytest.fixture
def server(settings):
    with KeyServer() as server:
        settings.COCOBASE_REALTIME = {
            "JWT": {"JWKS_URL": server.url, "ALGORITHMS": ["RS256"], "USER_LOOKUP": None}
        }
        yield server


@pytest.fixture
def clock(monkeypatch):
    """Advance the clock of the key set by ``clock.offset`` seconds."""

    class Clock:
        offset = 0.0

        def monotonic(self):
            return time.monotonic() + self.offset

    clock = Clock()
    monkeypatch.setattr(jwks, "time", clock)
    return clock


def is_accepted(token):
    return authenticate(token, {}) is not None


def test_expired_keys_are_fetched_although_strangers_send_unknown_key_ids(server, clock):
    """A stranger sends a token every 6.5 seconds, for five minutes and more."""
    forged = private_key()
    assert is_accepted(server.sign("ada"))
    for n in range(70):
        clock.offset += 6.5
        with pytest.raises((NotYetValid, AuthenticationPostponed)):
            authenticate(server.sign("eve", f"made-up-{n}", forged), {})
        assert is_accepted(server.sign("ada")), f"after {clock.offset} seconds"
    assert server.requests <= 70 * 6.5 / jwks.UNKNOWN_KEY_INTERVAL + 2


def test_expired_keys_are_fetched_right_after_a_fetch_for_an_unknown_key_id(server, clock):
    assert is_accepted(server.sign("ada"))
    clock.offset = jwks.LIFETIME - 5
    with pytest.raises(NotYetValid):
        authenticate(server.sign("eve", "made-up", private_key()), {})
    clock.offset += 6  # less than `UNKNOWN_KEY_INTERVAL`
    with pytest.raises(AuthenticationPostponed):
        authenticate(server.sign("eve", "made-up", private_key()), {})
    assert is_accepted(server.sign("ada"))
    assert server.requests == 2
    clock.offset += jwks.LIFETIME
    assert is_accepted(server.sign("ada"))
    assert server.requests == 3


def test_expired_keys_are_used_for_a_while_if_the_server_is_away(server, clock, caplog):
    assert is_accepted(server.sign("ada"))
    server.status = 503
    clock.offset = jwks.LIFETIME + 1
    for _ in range(5):
        assert is_accepted(server.sign("ada"))
    assert server.requests == 2  # not one per token
    assert caplog.text.count("could not be fetched") == 1
    clock.offset = jwks.MAX_AGE + 1
    with pytest.raises(AuthenticationUnavailable):
        authenticate(server.sign("ada"), {})
    server.status = 200
    with pytest.raises(AuthenticationUnavailable):
        authenticate(server.sign("ada"), {})
    clock.offset += jwks.RETRY_INTERVAL
    assert is_accepted(server.sign("ada"))


@pytest.mark.parametrize("body", ["<html>maintenance</html>", "[]", "5", '{"keys": 5}', "{}", ""])
def test_server_that_answers_something_else_is_a_temporary_failure(server, body):
    server.body = body
    with pytest.raises(AuthenticationUnavailable):
        authenticate(server.sign("ada"), {})


def test_removed_key_is_refused_after_the_lifetime(server, clock):
    old = server.keys["one"]
    assert is_accepted(server.sign("ada"))
    server.keys = {"two": private_key()}
    assert is_accepted(server.sign("ada", "one", old))
    clock.offset = jwks.LIFETIME + 1
    with pytest.raises(NotYetValid):
        authenticate(server.sign("ada", "one", old), {})
    assert is_accepted(server.sign("ada", "two"))


def test_keys_that_cannot_be_used_are_skipped(server):
    server.extra = [
        {"kty": "PQC", "kid": "one"},
        {"kty": "EC", "crv": "P-999", "kid": "one"},
        {"kty": "RSA", "kid": "one", "n": 5, "e": "!"},
        {"kty": "oct", "kid": "one", "k": "AQAB", "use": "enc"},
        {},
        "text",
    ]
    assert is_accepted(server.sign("ada"))


def test_token_without_key_id_is_verified_with_each_key(server, clock):
    server.keys = {"one": private_key(), "two": private_key(), None: private_key()}
    for kid in server.keys:
        assert is_accepted(server.sign("ada", None, server.keys[kid])), kid
    assert server.requests == 1
    with pytest.raises(NotYetValid):
        authenticate(server.sign("ada", None, private_key()), {})
    rotated = server.keys[None] = private_key()
    clock.offset = jwks.UNKNOWN_KEY_INTERVAL + 1
    assert is_accepted(server.sign("ada", None, rotated))


def test_forged_signature_with_known_key_id_is_refused_without_fetch(server):
    assert is_accepted(server.sign("ada"))
    assert not is_accepted(server.sign("ada", "one", private_key()))
    assert server.requests == 1


def authenticate_in_threads(tokens):
    """Return the results, and how long each took."""
    results = [None] * len(tokens)

    def run(n):
        started_at = time.monotonic()
        try:
            result = authenticate(tokens[n], {})
        except (AuthenticationUnavailable, NotYetValid) as error:
            result = error
        finally:
            connections.close_all()
        results[n] = result, time.monotonic() - started_at

    threads = [threading.Thread(target=run, args=(n,)) for n in range(len(tokens))]
    for thread in threads:
        thread.start()
        time.sleep(0.01)
    return threads, results


def test_many_logins_at_once_cause_one_fetch(server, monkeypatch):
    for name in ("FETCH_TIMEOUT", "JOIN_TIMEOUT", "ABANDON_AFTER"):
        monkeypatch.setattr(jwks, name, 60.0)  # the machine may be slow
    server.answering.clear()
    threads, results = authenticate_in_threads([server.sign(n) for n in range(20)])
    time.sleep(0.3)
    server.answering.set()
    for thread in threads:
        thread.join()
    assert server.requests == 1
    assert [result.subject for result, _ in results] == [str(n) for n in range(20)]


def test_hung_server_occupies_one_thread_only(server, clock, monkeypatch):
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 4.0)
    server.answering.clear()
    threads, results = authenticate_in_threads([server.sign(n) for n in range(6)])
    for thread in threads:
        thread.join()
    assert all(isinstance(result, AuthenticationUnavailable) for result, _ in results)
    assert all(seconds < jwks.JOIN_TIMEOUT + 2.5 for _, seconds in results[1:])
    started_at = time.monotonic()
    with pytest.raises(AuthenticationUnavailable):
        authenticate(server.sign("ada"), {})
    assert time.monotonic() - started_at < jwks.JOIN_TIMEOUT
    # a request that never ends is abandoned
    clock.offset = jwks.ABANDON_AFTER
    server.answering.set()
    assert is_accepted(server.sign("ada"))


def test_hung_server_does_not_delay_tokens_with_expired_keys_for_long(server, clock, monkeypatch):
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 4.0)
    assert is_accepted(server.sign("ada"))
    server.answering.clear()
    clock.offset = jwks.LIFETIME + 1
    threads, results = authenticate_in_threads([server.sign(n) for n in range(6)])
    for thread in threads:
        thread.join()
    assert [result.subject for result, _ in results] == [str(n) for n in range(6)]
    assert all(seconds < jwks.JOIN_TIMEOUT + 2.5 for _, seconds in results[1:])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_process_fetches_keys_itself(server):
    server.answering.clear()
    threads, _ = authenticate_in_threads([server.sign("ada")])
    time.sleep(0.2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork with threads is the subject
        pid = os.fork()
    if pid == 0:
        jwks.key_set(server.url)  # a new one: the one of the parent would wait for a lost thread
        os._exit(0 if jwks.key_set.cache_info().misses == 1 else 1)
    assert os.waitpid(pid, 0)[1] == 0
    server.answering.set()
    threads[0].join()


async def test_absent_key_server_closes_connection_for_later(realtime, server):
    server.status = 503
    async with realtime(authenticate=False) as client:
        await client.send({"type": "auth", "token": server.sign("ada")})
        assert await client.closed() == 4101
    async with realtime(path="/realtime/collections/posts", authenticate=False) as sdk:
        await sdk.send({"api_key": server.sign("ada")})
        assert await sdk.closed() == 4101
    assert throttling.auth_throttle.delay("unknown", time.monotonic()) == 0


async def test_token_with_unknown_key_is_accepted_when_its_key_appears(
    realtime, server, clock, throttle
):
    """A provider signs with a new key a moment before it publishes the key."""
    new = private_key()
    token = server.sign("ada", "two", new)
    async with realtime(authenticate=False) as client:
        await client.send({"type": "auth", "token": token})
        assert await client.closed() == 4500
    server.keys["two"] = new
    async with realtime(token=token):
        pass
    server.keys["three"] = new
    token = server.sign("ada", "three", new)
    async with realtime(authenticate=False) as client:  # too soon to ask again
        await client.send({"type": "auth", "token": token})
        assert await client.closed() == 4101
    clock.offset = jwks.UNKNOWN_KEY_INTERVAL + 1
    async with realtime(token=token):
        pass
    failures = throttle._failures.values()
    assert sum(map(len, failures)) == 2  # both refusals count for the address


async def test_token_that_is_not_valid_yet_is_accepted_in_time(realtime, server):
    starts_at = datetime.now(UTC) + timedelta(seconds=3)
    token = server.sign("ada", nbf=starts_at)
    async with realtime(authenticate=False) as client:
        await client.send({"type": "auth", "token": token})
        assert await client.closed() == 4500
    while datetime.now(UTC) < starts_at + timedelta(seconds=1):  # in whole seconds
        await asyncio.sleep(0.1)
    async with realtime(token=token):
        pass


async def test_expiry_is_not_reported_for_a_forged_signature(realtime, server):
    """Nothing may be learned from a token whose signature was not verified."""
    past = datetime.now(UTC) - timedelta(hours=1)
    tokens = [
        server.sign("ada", exp=past),
        server.sign("ada", "one", private_key(), exp=past),
        server.sign("ada", "one", private_key()),
    ]
    replies, sdk_replies = [], []
    for token in tokens:
        async with realtime(authenticate=False) as client:
            replies.append(await client.request({"type": "auth", "token": token}))
            assert await client.closed() == 4500
        async with realtime(path="/realtime/collections/posts", authenticate=False) as sdk:
            sdk_replies.append(await sdk.request({"api_key": token}))
            assert await sdk.closed() == 4500
    assert replies[0] == replies[1] == replies[2]
    assert sdk_replies[0] == sdk_replies[1] == sdk_replies[2]
    assert "expired" not in str(replies + sdk_replies)


async def test_refresh_with_forged_expired_token_keeps_the_connection(realtime, server):
    past = datetime.now(UTC) - timedelta(hours=1)
    async with realtime(token=server.sign("ada")) as client:
        forged = server.sign("ada", "one", private_key(), exp=past)
        reply = await client.request({"type": "auth", "token": forged})
        assert reply["code"] == "authentication_failed"
        assert (await client.request({"type": "ping"}))["type"] == "pong"


async def test_token_within_leeway_is_not_closed_at_once(realtime, server, settings):
    settings.COCOBASE_REALTIME["JWT"] |= {"LEEWAY": 60}
    token = server.sign("ada", exp=datetime.now(UTC) - timedelta(seconds=5))
    async with realtime(token=token) as client:
        assert await client.receive_nothing(0.5)


async def test_user_of_another_authenticator_is_accepted_while_key_server_is_away(
    realtime, server, settings
):
    settings.COCOBASE_REALTIME["AUTHENTICATORS"] = [
        "django_cocobase_realtime.auth.jwt.JwtAuthenticator",
        f"{__name__}.OtherTokens",
    ]
    server.status = 503
    user = await sync_to_async(get_user_model().objects.create_user)("ada")
    OtherTokens.user = user
    async with realtime(token=server.sign("other")):
        pass


class OtherTokens:
    kind = "other"
    user = None

    def authenticate(self, token, scope):
        from django_cocobase_realtime.identity import Identity

        return Identity("other:1", user=self.user, user_id=self.user.pk)

    def revoked(self, identities):
        return set()

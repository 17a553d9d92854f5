"""Anonymous visitors: who counts as one, and what their connections share."""

import pytest
from django.core.cache import InvalidCacheKey
from django.core.cache.backends.locmem import LocMemCache
from django.db import OperationalError

from django_cocobase_realtime.auth.anonymous import Anonymous
from django_cocobase_realtime.auth.backends import (
    AuthenticationUnavailable,
    NotYetValid,
    authenticate,
    find_revoked,
)
from django_cocobase_realtime.auth.base import Authenticator
from django_cocobase_realtime.auth.throttling import auth_throttle
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.identity import Identity, account_of
from django_cocobase_realtime.utils.project_code import ProjectCodeFailed
from tests.app.models import Post
from tests.support.frames import receive_title

pytestmark = pytest.mark.django_db(transaction=True)

ANONYMOUS = "django_cocobase_realtime.auth.anonymous.Anonymous"
KEYS = "django_cocobase_realtime.auth.api_key.ApiKeyAuthenticator"
SESSIONS = "django_cocobase_realtime.auth.django_session.DjangoSessionAuthenticator"


class Undecided(Authenticator):
    error: Exception = OperationalError("no connection")

    def authenticate(self, token, scope):
        raise self.error


class OfTenant(Anonymous):
    project = "tenant"


class Downgrading(Authenticator):
    def authenticate(self, token, scope):
        return Identity("guest:", is_anonymous=True)


@pytest.fixture(autouse=True)
def configure(settings):
    def configure(*authenticators):
        settings.COCOBASE_REALTIME = {
            "COLLECTIONS": {"posts": {"model": "app.Post", "public": True}},
            "AUTHENTICATORS": authenticators,
            "REVOCATION_POLL": 0.2,
            "LIMITS": {"connections_per_user": 1, "connections_per_address": 4},
        }

    configure(ANONYMOUS, KEYS, SESSIONS)
    return configure


async def test_visitor_reads_and_user_reads_after_login(realtime, user):
    async with realtime(authenticate=False) as visitor:
        reply = await visitor.request({"type": "auth"})
        assert (reply["user"], reply["expires_at"], reply["project"]) == (None, None, "default")
        await visitor.subscribe("posts")
        assert (await visitor.request({"type": "auth"}))["type"] == "authenticated"  # a refresh
        await Post.objects.acreate(title="x")
        assert await receive_title(visitor) == "x"
        assert await visitor.receive_nothing(0.5)  # checks of credentials do not concern visitors
    async with realtime(user=user, authenticate=False) as ada:  # a session wins
        assert (await ada.request({"type": "auth"}))["user"]["id"] == str(user.pk)


async def test_visitor_becomes_a_user_on_a_new_connection_only(realtime, api_key):
    async with realtime() as visitor:
        reply = await visitor.request({"type": "auth", "token": api_key})
        assert reply["code"] == "authentication_failed"
        assert await visitor.closed() == 4500


@pytest.mark.parametrize("token", ["crk_12345678_wrong", "x", "", " ", "null"])
async def test_wrong_token_makes_no_visitor(realtime, token):
    async with realtime(authenticate=False) as client:
        reply = await client.request({"type": "auth", "token": token})
        assert reply["code"] == "authentication_failed"
        assert await client.closed() == 4500
    async with realtime() as visitor:  # nor does it end the connection of one
        reply = await visitor.request({"type": "auth", "token": token})
        assert reply["code"] == "authentication_failed"
        assert (await visitor.request({"type": "ping"}))["type"] == "pong"


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OperationalError("no connection"), AuthenticationUnavailable),
        (AuthenticationUnavailable(), AuthenticationUnavailable),
        (NotYetValid(), NotYetValid),
        (RuntimeError("no"), ProjectCodeFailed),
    ],
)
def test_user_who_cannot_be_checked_is_no_visitor(configure, monkeypatch, error, raised):
    monkeypatch.setattr(Undecided, "error", error)
    configure(ANONYMOUS, f"{__name__}.Undecided")
    with pytest.raises(raised):
        authenticate(None, {})


def test_authenticators_decide_who_is_anonymous(configure):
    assert authenticate(None, {"type": "websocket"}).is_anonymous
    assert authenticate(None, {"type": "http"}) is None
    configure(KEYS, SESSIONS)
    assert authenticate(None, {}) is None
    configure(f"{__name__}.OfTenant")
    assert authenticate(None, {}).project == "tenant"
    configure(f"{__name__}.Downgrading")
    assert authenticate(None, {}).is_anonymous
    assert authenticate("a token", {}) is None
    configure("nowhere.Nothing", ANONYMOUS)
    with pytest.raises(ProjectCodeFailed):
        authenticate(None, {})


class DownCache(LocMemCache):
    """A cache that can fail, as one on another machine does."""

    failure: type[Exception] | None = None
    # whether it ignores its failures, like some clients of memcached
    is_silent = False

    def get(self, *args, **options):
        if self.failure is not None:
            raise self.failure
        return None if self.is_silent else super().get(*args, **options)


@pytest.mark.parametrize(
    ("engine", "failure", "is_silent"),
    [
        ("cache", ConnectionError, False),
        ("cache", None, True),
        ("cached_db", ConnectionError, False),
        ("cached_db", None, True),
    ],
)
def test_user_whose_session_is_in_a_failing_cache_is_no_visitor(
    settings, configure, client, user, monkeypatch, engine, failure, is_silent
):
    configure(ANONYMOUS, SESSIONS)
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.DownCache"}}
    client.force_login(user)
    scope = {"type": "websocket", "realtime_origin_checked": True}
    scope["headers"] = [(b"cookie", f"sessionid={client.cookies['sessionid'].value}".encode())]
    identity = authenticate(None, scope)
    assert identity.user_id == user.pk
    with monkeypatch.context() as patch:
        patch.setattr(DownCache, "failure", failure)
        patch.setattr(DownCache, "is_silent", is_silent)
        if engine == "cache":
            with pytest.raises(AuthenticationUnavailable):
                authenticate(None, scope)
            with pytest.raises(AuthenticationUnavailable):
                find_revoked(SESSIONS, [identity])
        else:  # the database has the session too
            assert authenticate(None, scope).user_id == user.pk
            assert find_revoked(SESSIONS, [identity]) == set()
    client.logout()  # the session ends
    assert authenticate(None, scope).is_anonymous
    assert find_revoked(SESSIONS, [identity]) == {identity.credential}
    monkeypatch.setattr(DownCache, "failure", InvalidCacheKey)  # a cookie that cannot be a key
    assert authenticate(None, scope).is_anonymous


async def test_limits_of_visitors_count_per_address(realtime):
    identity = authenticate_visitor()
    assert identity.same_subject(authenticate_visitor())
    assert account_of(identity, "1.2.3.4") != account_of(identity, "1.2.3.5")
    failures = len(auth_throttle._failures)
    async with realtime() as one, realtime() as two, realtime(), realtime():
        owners = [connection.owner for connection in Hub.current().connections.values()]
        assert len({owner.account for owner in owners}) == 1
        assert len({owner.connection for owner in owners}) == 4
        async with realtime(authenticate=False) as fifth:  # connections_per_address
            assert await fifth.closed() == 4131
        for client in (one, two):  # connections_per_user is not for visitors
            assert (await client.request({"type": "ping"}))["type"] == "pong"
    assert len(auth_throttle._failures) == failures


def authenticate_visitor():
    identity = Anonymous().authenticate(None, {})
    assert identity is not None
    assert not identity.is_authenticated
    assert identity.user_key is None
    return identity

"""Neither clients nor slow authenticators delay the moment when a revoked connection is closed."""

import asyncio
import threading
import time

import pytest

from django_cocobase_realtime.auth.base import Authenticator
from django_cocobase_realtime.hub.hub import Hub
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.permissions import Permission
from tests.support.tokens import create_token

pytestmark = pytest.mark.django_db(transaction=True)
POLL = 0.5
JWT = {"KEY": "a-shared-secret-of-more-than-32-bytes!"}
JWT_AUTHENTICATOR = "django_cocobase_realtime.auth.jwt.JwtAuthenticator"


class SlowPermission(Permission):
    seconds = 0.15
    # calls that run now, and the most that ran at the same time
    running = 0
    most = 0
    lock = threading.Lock()

    def visible_to(self, identity):
        cls = SlowPermission
        with cls.lock:
            cls.running += 1
            cls.most = max(cls.most, cls.running)
        time.sleep(cls.seconds)
        with cls.lock:
            cls.running -= 1
        return True


class SlowRevocation(Authenticator):
    """Checks its credentials very slowly."""

    kind = "slow"
    release = threading.Event()

    def authenticate(self, token, scope):
        return Identity(f"slow:{token}", user_id=1) if token == "slow" else None

    def revoked(self, identities):
        self.release.wait(10)
        return set()


class Careless(Authenticator):
    """Returns identities that cannot be compared, or that it cannot check itself."""

    kind = "careless"

    def authenticate(self, token, scope):
        if token == "unhashable":
            return Identity("careless:1", subject="1", private={"roles": []})
        if token in ("bad", "good"):
            return Identity(f"careless:{token}", subject=token)
        return None

    def revoked(self, identities):
        if any(identity.subject == "bad" for identity in identities):
            raise LookupError("bad")
        return {identity.credential for identity in identities}


@pytest.fixture
def bob(transactional_db, django_user_model):
    return django_user_model.objects.create_user("bob")


@pytest.fixture(autouse=True)
def _configure(settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "permission": f"{__name__}.SlowPermission"},
        },
        "AUTHENTICATORS": [f"{__name__}.SlowRevocation", JWT_AUTHENTICATOR],
        "JWT": JWT,
        "REVOCATION_POLL": POLL,
    }
    SlowPermission.running = SlowPermission.most = 0
    SlowRevocation.release.clear()
    yield
    SlowRevocation.release.set()


async def seconds_until_revoked(user, client):
    """Deactivate a user without a signal, and return when the connection is closed."""
    await type(user).objects.filter(pk=user.pk).aupdate(is_active=False)
    started_at = time.monotonic()
    assert await client.closed() == 4500
    return time.monotonic() - started_at


async def test_renewals_with_slow_permissions_do_not_delay_revocation(realtime, user, bob):
    async with realtime(token=create_token(user)) as ada, realtime(token=create_token(bob)) as app:
        for number in range(15):
            await ada.subscribe("posts", subscription=f"s{number}")
        SlowPermission.most = 0

        async def renew():
            while True:
                await ada.send({"type": "auth", "token": create_token(user)})
                await asyncio.sleep(0.2)

        renewing = asyncio.create_task(renew())
        await asyncio.sleep(3 * POLL)
        try:
            assert await seconds_until_revoked(bob, app) < 2 * POLL
        finally:
            renewing.cancel()
        assert SlowPermission.most == 1  # one recheck of the connection at a time


async def test_slow_authenticator_does_not_delay_the_others(realtime, bob, caplog):
    async with realtime(token="slow") as slow, realtime(token=create_token(bob)) as app:
        await asyncio.sleep(3 * POLL)
        assert await seconds_until_revoked(bob, app) < 2 * POLL
        assert "SlowRevocation takes longer" in caplog.text
        assert (await slow.request({"type": "ping"}))["type"] == "pong"


async def test_closed_connection_is_not_rechecked_further(realtime, user, bob):
    async with realtime(token=create_token(bob)):
        async with realtime(token=create_token(user)) as ada:
            for number in range(15):
                await ada.subscribe("posts", subscription=f"s{number}")
            await asyncio.sleep(2 * POLL)
            await ada.send({"type": "auth", "token": create_token(user)})
            await ada.receive("authenticated")
            while not SlowPermission.running:
                await asyncio.sleep(0.01)
        await asyncio.sleep(2 * POLL + SlowPermission.seconds)
        assert not SlowPermission.running


async def test_closed_connection_is_not_reauthorized_further(realtime, user, bob):
    async with realtime(token=create_token(bob)):
        async with realtime(token=create_token(user)) as ada:
            for number in range(15):
                await ada.subscribe("posts", subscription=f"s{number}")
            reauthorizer = Hub.current().reauthorizer
            reauthorizer.request(Hub.current().connections.values())
            await asyncio.sleep(0.01)
        await asyncio.sleep(2 * SlowPermission.seconds)
        assert not reauthorizer._tasks
        assert not SlowPermission.running


async def test_bad_identity_does_not_prevent_the_checks_of_others(realtime, settings, bob, caplog):
    settings.COCOBASE_REALTIME |= {
        "AUTHENTICATORS": [f"{__name__}.Careless", JWT_AUTHENTICATOR],
    }
    async with (
        realtime(token="unhashable") as unhashable,
        realtime(token="bad") as bad,
        realtime(token="good") as good,
        realtime(token=create_token(bob)) as app,
    ):
        assert await unhashable.closed() == 4100
        assert "identity cannot be checked" in caplog.text
        assert await good.closed() == 4500  # its authenticator raised for another one
        assert "Careless" in caplog.text
        assert await seconds_until_revoked(bob, app) < 2 * POLL
        assert (await bad.request({"type": "ping"}))["type"] == "pong"

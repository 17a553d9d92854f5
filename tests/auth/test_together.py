"""Clients that arrive together: their credentials are checked in one call, with one query."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group, Permission
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from django_cocobase_realtime.auth import together
from django_cocobase_realtime.auth.backends import (
    AuthenticationUnavailable,
    NotYetValid,
    authenticate,
)
from django_cocobase_realtime.auth.jwt import JwtAuthenticator
from django_cocobase_realtime.auth.throttling import authenticate_throttled
from django_cocobase_realtime.auth.users import permission_fingerprints
from django_cocobase_realtime.hub.reauthorization import Reauthorizer
from django_cocobase_realtime.hub.rechecks import Rechecks
from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.utils.concurrency import run_authentications
from django_cocobase_realtime.utils.fair_queue import Owner
from tests.support.tokens import create_token

pytestmark = pytest.mark.django_db(transaction=True)

SITE = "django_cocobase_realtime.auth"
SCOPE = {"type": "websocket"}
OWNER = Owner("address")


class Own(JwtAuthenticator):
    """Overrides the method for one credential alone."""

    def authenticate(self, token, scope):
        return super().authenticate(token, scope)


@pytest.fixture
def users(transactional_db):
    return [get_user_model().objects.create_user(f"u{n}") for n in range(4)]


def session_scope(client: Any, user: Any) -> dict[str, Any]:
    client.force_login(user)
    cookie = f"sessionid={client.cookies['sessionid'].value}".encode()
    return {**SCOPE, "realtime_origin_checked": True, "headers": [(b"cookie", cookie)]}


def one_by_one(credentials):
    answers = []
    for token, scope in credentials:
        try:
            answers.append(authenticate(token, scope))
        except Exception as error:
            answers.append(error)
    return answers


def credentials_of_all_kinds(users, client):
    ada, bob, eve, inactive = users
    inactive.is_active = False
    inactive.save()
    keys = ApiKey.objects
    revoked = keys.create_key("revoked")
    revoked[0].revoke()
    live, other = keys.create_key("live")[1], keys.create_key("ada", user=ada)[1]
    scopes = [session_scope(type(client)(), user) for user in (ada, bob)]
    logged_out = session_scope(client, eve)
    client.logout()
    changed = session_scope(type(client)(), eve)
    eve.set_password("new")
    eve.save()
    return [
        *((token, SCOPE) for token in (live, other, revoked[1], f"{live}x", "crk_unknown0_x")),
        (keys.create_key("inactive", user=inactive)[1], SCOPE),
        *((create_token(user), SCOPE) for user in (ada, bob, inactive)),
        *((create_token(sub), SCOPE) for sub in ("999999", "abc", " 1", "9" * 60)),
        (create_token(ada) + "x", SCOPE),
        (create_token(ada, nbf=4_000_000_000), SCOPE),
        ("", SCOPE),
        ("nothing", SCOPE),
        *((None, scope) for scope in scopes),
        (None, logged_out),
        (None, changed),
        (None, {**scopes[0], "realtime_origin_checked": False}),
        (None, SCOPE),
    ]


def test_answers_are_the_same_as_one_by_one(users, client):
    credentials = credentials_of_all_kinds(users, client)
    expected, answers = one_by_one(credentials), together.authenticate_many(credentials)
    assert sum(answer is not None for answer in expected) == 7
    assert any(isinstance(answer, NotYetValid) for answer in expected)
    for one, other in zip(expected, answers, strict=True):
        if isinstance(one, Exception):
            assert type(other) is type(one)
        elif one is None or one.credential.startswith("session:"):
            assert (one and one.credential) == (other and other.credential)
        else:
            assert other == one


@pytest.mark.parametrize("kind", ["key", "token", "session"])
def test_number_of_queries_does_not_grow(users, client, kind):
    def make(user):
        if kind == "key":
            return ApiKey.objects.create_key("k", user=user)[1], SCOPE
        if kind == "token":
            return create_token(user), SCOPE
        return None, session_scope(type(client)(), user)

    credentials = [make(user) for user in users]
    counts = []
    for part in (credentials[:2], credentials):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert all(together.authenticate_many(part))
        counts.append(len([q for q in queries if q["sql"].startswith("SELECT")]))
    assert counts[0] == counts[1] <= (5 if kind == "key" else 4)


def test_user_model_that_raises_fails_its_own_item(users, monkeypatch):
    def get_hash(user):
        if user.username == "u1":
            raise ValueError
        return "hash"

    monkeypatch.setattr(get_user_model(), "get_session_auth_hash", get_hash)
    answers = together.authenticate_many([(create_token(user), SCOPE) for user in users])
    failed = [isinstance(answer, Exception) for answer in answers]
    assert failed == [False, True, False, False]


@pytest.mark.parametrize("error", [OperationalError("down"), ValueError("one is impossible")])
def test_failure_of_the_query(users, monkeypatch, error):
    def fail(lookup, values):
        raise error

    monkeypatch.setattr(f"{SITE}.jwt.active_users", fail)
    answers = together.authenticate_many([(create_token(user), SCOPE) for user in users])
    is_down = isinstance(error, OperationalError)
    expected = AuthenticationUnavailable if is_down else together.MustBeAlone
    assert [type(answer) for answer in answers] == [expected] * 4


async def test_credentials_are_asked_about_alone_after_a_failure(users, monkeypatch):
    def fail(lookup, values):
        raise ValueError

    monkeypatch.setattr(f"{SITE}.jwt.active_users", fail)
    identity = await authenticate_throttled(create_token(users[0]), SCOPE, "192.0.2.1")
    assert identity.user == users[0]


@pytest.mark.parametrize(
    ("authenticators", "expected"),
    [
        (["api_key.ApiKeyAuthenticator", "jwt.JwtAuthenticator", "anonymous.Anonymous"], True),
        (["api_key.ApiKeyAuthenticator", "Own"], False),
    ],
)
def test_own_authenticators_of_a_project_are_not_asked_together(settings, authenticators, expected):
    paths = [f"{__name__}.{n}" if "." not in n else f"{SITE}.{n}" for n in authenticators]
    settings.COCOBASE_REALTIME = {"AUTHENTICATORS": paths}
    assert together.may_be_together() is expected


def test_names_of_members_are_not_asked_together(settings):
    assert together.may_be_together()
    settings.COCOBASE_REALTIME = {"MEMBER": f"{__name__}.member"}
    assert not together.may_be_together()


async def gather(calls):
    """Return the results of authentications that arrive while both threads are busy."""
    release = threading.Event()

    def wait(batch):
        release.wait(5)
        return batch

    busy = [asyncio.create_task(run_authentications(Owner(n), wait, n)) for n in range(2)]
    await asyncio.sleep(0.1)
    tasks = [asyncio.create_task(call) for call in calls]
    await asyncio.sleep(0.1)
    release.set()
    await asyncio.gather(*busy)
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_calls_that_wait_are_made_together():
    batches = []

    def function(items):
        batches.append(items)
        return [ZeroDivisionError() if item == 2 else item * 10 for item in items]

    results = await gather(run_authentications(OWNER, function, item) for item in (1, 2, 3))
    assert batches == [[1, 2, 3]]
    assert results[0] == 10
    assert isinstance(results[1], ZeroDivisionError)
    assert results[2] == 30


tenant = contextvars.ContextVar("tenant", default="")


async def test_calls_in_different_contexts_are_made_apart():
    """A database router of the project may depend on a context variable."""
    seen = []

    def function(items):
        seen.append((tenant.get(), sorted(items)))
        return items

    async def arrive(name, item):
        tenant.set(name)
        return await run_authentications(Owner(name), function, item)

    one, other = "one", "other"
    names = [(one, 1), (one, 2), (other, 3), (other, 4)]
    results = await gather(arrive(name, item) for name, item in names)
    assert results == [1, 2, 3, 4]
    assert {name for name, _ in seen} == {"one", "other"}
    assert all(set(items) <= ({1, 2} if name == "one" else {3, 4}) for name, items in seen)


async def test_several_calls_run_at_once_if_very_many_items_wait(monkeypatch):
    """Each has a context of its own: one that is in use cannot be entered by another thread."""
    monkeypatch.setattr("django_cocobase_realtime.utils.batches.MAX_ITEMS", 2)
    both = threading.Barrier(2, timeout=5)

    def function(items):
        both.wait()
        return [(item, tenant.get()) for item in items]

    tenant.set("one")
    results = await gather(run_authentications(OWNER, function, item) for item in range(4))
    assert results == [(item, "one") for item in range(4)]


# fingerprints


def test_identity_has_the_fingerprint_that_the_regular_check_reads(users):
    ada, bob, *_ = users
    group = Group.objects.create(name="g")
    permissions = list(Permission.objects.all()[:3])
    group.permissions.add(*permissions[:2])
    ada.groups.add(group)
    bob.user_permissions.add(permissions[2])
    answers = together.authenticate_many([(create_token(user), SCOPE) for user in users])
    assert {i.user.pk: i.fingerprint for i in answers} == permission_fingerprints(answers)
    (http,) = together.authenticate_many([(create_token(ada), {"type": "http"})])
    assert http.fingerprint is None


def test_user_of_a_middleware_has_no_fingerprint(users):
    scope = {**SCOPE, "realtime_origin_checked": True, "user": users[0]}
    (answer,) = together.authenticate_many([(None, scope)])
    assert isinstance(answer, together.MustBeAlone)


@pytest.fixture
def rechecked(monkeypatch, settings):
    settings.COCOBASE_REALTIME = {
        **settings.COCOBASE_REALTIME,
        "REVOCATION_POLL": 0.5,
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "permission": "tests.support.permissions.AdminOrOwn"}
        },
    }
    started = []
    run = Rechecks._run

    def record(self, connection, identity):
        started.append(connection)
        return run(self, connection, identity)

    request = Reauthorizer.request

    def record_request(self, connections):
        connections = list(connections)
        started.extend(connections)
        request(self, connections)

    monkeypatch.setattr(Rechecks, "_run", record)
    # a slow machine may have made the first check before the change
    monkeypatch.setattr(Reauthorizer, "request", record_request)
    return started


async def wait_for(started):
    async with asyncio.timeout(20):
        while not started:
            await asyncio.sleep(0.05)


async def test_unchanged_user_is_not_rechecked(realtime, user, rechecked):
    async with realtime(token=create_token(user)) as ada:
        await ada.subscribe("posts")
        await asyncio.sleep(1.5)
        assert rechecked == []
        await type(user).objects.filter(pk=user.pk).aupdate(is_staff=True)
        assert await ada.closed() == 4201


@pytest.mark.parametrize(
    ("change", "is_closed"), [({"is_staff": False}, True), ({"first_name": "Ada"}, False)]
)
async def test_change_between_login_and_first_check_is_noticed(
    realtime, user, rechecked, change, is_closed
):
    user.is_staff = True
    await user.asave()
    async with realtime(token=create_token(user)) as ada:
        await ada.subscribe("posts")
        # without a signal
        await type(user).objects.filter(pk=user.pk).aupdate(**change)
        await wait_for(rechecked)
        if is_closed:
            assert await ada.closed() == 4201


async def test_group_that_is_left_between_login_and_first_check_is_noticed(
    realtime, user, rechecked
):
    group = await Group.objects.acreate(name="g")
    await sync_to_async(user.groups.add)(group)
    async with realtime(token=create_token(user)) as ada:
        await ada.subscribe("posts")
        await user.groups.through.objects.all().adelete()
        await wait_for(rechecked)

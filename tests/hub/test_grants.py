"""Which permissions are evaluated on the event loop, and which in worker threads."""

from __future__ import annotations

import threading

import pytest

from django_cocobase_realtime.declarations.collection import Collection
from django_cocobase_realtime.hub.grants import evaluate_collection
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.permissions import (
    AllowAny,
    DjangoModelPermissions,
    HasCredential,
    IsAuthenticated,
    owned_by,
)
from django_cocobase_realtime.relations.key_sets import KeySets
from tests.app.models import Post

pytestmark = pytest.mark.django_db(transaction=True)

APP = Identity("key:1")
VISITOR = Identity("anonymous:", is_anonymous=True)


class Posts(Collection):
    name = "posts"
    model = Post
    public = True


class Overriding(Posts):
    def visible_to(self, identity):
        return True


class WithRows(Posts):
    def has_object_permission(self, identity, instance):
        return True


@pytest.fixture
def threads(monkeypatch):
    """Record the thread of each evaluation."""
    names = []
    grant = Collection._grant

    def record(self, identity, filters, key_set):
        names.append(threading.current_thread().name)
        return grant(self, identity, filters, key_set)

    monkeypatch.setattr(Collection, "_grant", record)
    return names


def is_worker(name):
    return name.startswith("realtime-")


@pytest.mark.parametrize("permission", [None, AllowAny, HasCredential, IsAuthenticated])
async def test_permission_without_queries_needs_no_thread(threads, permission):
    cls = type("Plain", (Posts,), {"permission": permission})
    collection = cls()
    grants = [await evaluate_collection(collection, APP, {}, KeySets()) for _ in range(2)]
    # the first time computes properties, which may import modules of the project
    assert [is_worker(name) for name in threads] == [True, False]
    assert grants[0] == grants[1]
    assert (grants[0] is None) is (permission is IsAuthenticated)


@pytest.mark.parametrize(
    "cls",
    [
        Overriding,
        WithRows,
        *(
            type("Other", (Posts,), {"permission": permission})
            for permission in (
                DjangoModelPermissions,
                owned_by("owner"),
                AllowAny & HasCredential,
                type("Own", (AllowAny,), {}),
            )
        ),
    ],
)
async def test_other_permissions_need_a_thread(threads, cls):
    collection = cls()
    for _ in range(2):
        await evaluate_collection(collection, APP, {}, KeySets())
    assert [is_worker(name) for name in threads] == [True, True]


async def test_refusal_takes_as_long_as_one_by_a_thread(threads, monkeypatch):
    collection = type("Plain", (Posts,), {"permission": HasCredential})()
    assert await evaluate_collection(collection, APP, {}, KeySets())
    calls = []

    async def record(subject, function, *args):
        calls.append(subject)

    monkeypatch.setattr("django_cocobase_realtime.hub.grants.run_for_subject", record)
    assert await evaluate_collection(collection, VISITOR, {}, KeySets()) is None
    assert calls == [None]
    assert await evaluate_collection(collection, APP, {}, KeySets())
    assert calls == [None]

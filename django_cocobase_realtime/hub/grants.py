"""The permissions of a connection's subscriptions and rooms, evaluated again and compared.

Each permission is evaluated in a call of its own, which counts for the owner of the task and for
the collection or the declaration of rooms, so that slow permissions get no more than fair shares.
Permissions that refuse by the scope of the credential alone need no thread. Nor does a collection
that overrides nothing, depends on no other tables, and names no permission or one of this app that
looks only at the identity.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from ..auth.users import refresh_user
from ..conf import conf
from ..declarations.authorization import Grant
from ..declarations.collection import Collection
from ..declarations.registry import UnknownCollection, registry
from ..declarations.room import RoomGrant
from ..delivery.query import AuthorizedQuery, allow_the_same, rebuild_query
from ..delivery.subscription import Subscription
from ..identity import Identity
from ..permissions import AllowAny, HasCredential, IsAuthenticated, Permission
from ..relations.key_sets import KeySets
from ..rooms.local_room import RoomMembership
from ..utils.concurrency import run_for_subject, run_in_threadpool
from ..utils.project_code import ProjectCodeFailed

T = TypeVar("T")

# permissions that use neither the ORM nor an attribute of the user
_PERMISSIONS_WITHOUT_QUERIES = (Permission, AllowAny, HasCredential, IsAuthenticated)
# the methods by which a collection decides
_METHODS = ("can_subscribe", "visible_to", "fields_for", "admits", "grant", "_grant")

# collections whose permission was evaluated before, so that their cached properties are computed
_evaluated: weakref.WeakSet[Collection] = weakref.WeakSet()


async def refresh_identity(identity: Identity) -> Identity | None:
    """Return an identity with its user as it is in the database now; None if there is none.

    Raises the exceptions of the database, as do the other functions.
    """
    if identity.user is None:
        return identity
    user = await run_in_threadpool(refresh_user, identity.user)
    return None if user is None else replace(identity, user=user)


async def evaluate_room(
    membership: RoomMembership, identity: Identity
) -> RoomGrant | ProjectCodeFailed | None:
    """Return the grant that an identity would get in a room now; None if it may not join."""
    room, name = membership.grant.room, membership.key[1]
    if not room.admits(identity, name):
        return None
    grant = partial(room.grant, identity, name)
    if not room.has_custom_permission:
        return grant()
    return await run_for_subject(room, _result_or_failure, grant)


async def evaluate_collection(
    collection: Collection, identity: Identity, filters: Mapping[str, Any], key_sets: KeySets
) -> Grant | None:
    """Return what an identity may see of a collection that admits it, or None.

    A refusal takes as long as one by a permission that needs a thread.
    """
    evaluate = partial(collection.grant, identity, filters, key_sets.maker(collection))
    if _needs_thread(collection):
        grant = await run_for_subject(collection.stream, evaluate)
        _evaluated.add(collection)
        return grant
    grant = evaluate()
    if grant is None:
        await run_for_subject(None, _do_nothing)
    return grant


def _needs_thread(collection: Collection) -> bool:
    """Return whether code of the project, or a query, may be needed to evaluate a permission."""
    if collection not in _evaluated or hasattr(collection, "has_object_permission"):
        return True
    if collection.dependencies:  # a client may filter by related rows
        return True
    cls = type(collection)
    if any(getattr(cls, name) is not getattr(Collection, name) for name in _METHODS):
        return True
    permission = collection.loaded_permission
    return permission is not None and all(
        permission is not other for other in _PERMISSIONS_WITHOUT_QUERIES
    )


def _do_nothing() -> None:
    pass


async def evaluate_subscription(
    subscription: Subscription, identity: Identity, key_sets: KeySets
) -> AuthorizedQuery | ProjectCodeFailed | None:
    """Return the query that an identity would get now; None if it may not subscribe."""
    try:
        collection = registry.get(subscription.collection)
    except UnknownCollection:
        return None
    if not collection.admits(identity):
        return None
    request = subscription.request.serialized
    rebuild = partial(rebuild_query, conf.limits, request, identity, key_sets.maker)
    if not _needs_thread(collection):
        return _result_or_failure(rebuild)
    return await run_for_subject(collection.stream, _result_or_failure, rebuild)


def allows_the_same(
    subscription: Subscription, query: AuthorizedQuery | ProjectCodeFailed | None
) -> bool:
    """Return whether a new query allows the same as that of a subscription."""
    return isinstance(query, AuthorizedQuery) and allow_the_same(
        subscription.query, query, subscription.collection
    )


def follows_changes(subscription: Subscription, query: AuthorizedQuery) -> bool:
    """Return whether a subscription continues when ``query`` allows it to see other rows.

    Otherwise its connection is closed, and the client fetches everything again.
    """
    if subscription.request.live is not None:
        # unless other fields are readable, which may concern its order
        return query.scope_base == subscription.query.scope_base
    collection = registry.get(subscription.collection)
    return bool(collection.dependencies) and collection.durable


def _result_or_failure(evaluate: Callable[[], T]) -> T | ProjectCodeFailed:
    try:
        return evaluate()
    except ProjectCodeFailed as failure:
        return failure

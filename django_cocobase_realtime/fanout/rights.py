"""When rights change: what a connection watches is frozen at once, and thaws or ends.

A subscription whose scope is still the same goes on from where it stood, nothing lost. One that
may see something else ends the connection with 4201: its client comes back and fetches afresh.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from django.db import DatabaseError

from ..auth.users import reloaded
from ..conf import conf
from ..identity import Identity
from ..log.cursor import Position
from ..room import RoomGrant
from ..rooms.rooms import Seat
from ..wire.codes import CloseCode
from ..workers import run
from .start import release
from .subscriptions import Begin, Subscription, View
from .views import view_again

if TYPE_CHECKING:
    from .connection import Connection
    from .hub import Hub

logger = logging.getLogger(__name__)

Frozen = list[tuple[Subscription, Begin | None]]
"""Subscriptions, and how each goes on from where it is; None where no log keeps it."""


def freeze(hub: Hub, connection: Connection) -> Frozen:
    """Tell the connection nothing more of any collection. At once: not a byte follows."""
    frozen: Frozen = []
    for subscription in connection.subscriptions.values():
        begin = subscription.begin
        if subscription.starting is not None:
            subscription.starting.cancel()
        feed = hub.feeds.get(subscription.collection)
        table = hub.audiences[subscription.collection].table
        if feed is None:
            # what a snapshot held back is dropped with it: it begins anew
            subscription.held = []
            table.add(subscription)
        else:
            table.discard(subscription)
            seq = subscription.unchecked[0] - 1 if subscription.unchecked else feed.seq
            begin = begin or Begin(Position(feed.epoch, seq))
        subscription.unchecked = None
        frozen.append((subscription, begin))
    return frozen


async def thaw(hub: Hub, connection: Connection, frozen: Frozen) -> None:
    """Ask anew what the identity may see; go on where that is the same, else close."""
    while True:
        identity, rights = connection.identity, connection.rights
        if identity is None:
            return
        seats = [seat for seat in connection.rooms.values() if seat.grant.room.asks]
        try:
            fresh, views = await run(_ask, identity, [subscription for subscription, _ in frozen])
            grants = [] if fresh is None else await run(_enter, fresh, seats)
        except DatabaseError as error:
            logger.warning("Rights could not be looked at: %r", error)
            connection.close(CloseCode.UNAVAILABLE)
            return
        except Exception:
            logger.exception("A permission failed.")
            connection.close(CloseCode.INTERNAL_ERROR)
            return
        if fresh is None:
            connection.close(CloseCode.BAD_CREDENTIAL)
            return
        if (connection.identity, connection.rights) == (identity, rights):
            break  # else they changed again while we asked
    connection.identity = fresh
    live = [
        (subscription, begin, view)
        for (subscription, begin), view in zip(frozen, views, strict=True)
        if connection.subscriptions.get(subscription.name) is subscription
    ]
    if any(view is None or view.scope != s.view.scope for s, _, view in live):
        connection.close(CloseCode.PERMISSIONS_CHANGED)
        return
    sitting = list(connection.rooms.values())
    if any(s.grant != grant for s, grant in zip(seats, grants, strict=True) if s in sitting):
        connection.close(CloseCode.PERMISSIONS_CHANGED)
        return
    for subscription, begin, view in live:
        assert view is not None
        subscription.view, subscription.rights = view, rights
        if begin is not None:
            hub.start(subscription, begin)
            continue
        release(subscription, hub.audiences[subscription.collection])


def _enter(identity: Identity, seats: list[Seat]) -> list[RoomGrant | None]:
    return [seat.grant.room.grant(identity, seat.key[1]) for seat in seats]


def _ask(
    identity: Identity, subscriptions: list[Subscription]
) -> tuple[Identity | None, list[View | None]]:
    user = identity.user
    if user is not None:
        user = reloaded(user)
        if user is None:
            return None, []
        identity = replace(identity, user=user)
    limits = conf.limits
    return identity, [view_again(limits, s.asked, identity) for s in subscriptions]

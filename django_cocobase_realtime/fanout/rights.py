"""When rights change: what a connection watches is frozen at once, and thaws or ends.

A subscription whose scope is still the same goes on from where it stood, nothing lost. One that
may see something else ends the connection with 4201: its client comes back and fetches afresh.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from django.db import DatabaseError, InterfaceError

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


def freeze(hub: Hub, connection: Connection) -> list[Subscription]:
    """Tell the connection nothing more of any collection. At once: not a byte follows.

    Each subscription keeps how it goes on from where it is. Again for what came meanwhile.
    """
    for subscription in connection.subscriptions.values():
        if subscription.starting is not None:
            subscription.starting.cancel()
            subscription.starting = None
        feed = hub.feeds.get(subscription.collection)
        table = hub.audiences[subscription.collection].table
        if feed is None:
            # what a snapshot held back follows it, should that begin anew: some of it was shown
            subscription.held = subscription.held or []
            table.add(subscription)
        else:
            table.discard(subscription)
            seq = subscription.unchecked[0] - 1 if subscription.unchecked else feed.seq
            subscription.begin = subscription.begin or Begin(Position(feed.epoch, seq))
            subscription.unchecked = None
    return list(connection.subscriptions.values())


async def thaw(hub: Hub, connection: Connection) -> None:
    """Ask anew what the identity may see; go on where that is the same, else close."""
    while True:
        subscriptions = freeze(hub, connection)
        identity, rights = connection.identity, connection.rights
        if identity is None:
            return
        seats = [seat for seat in connection.rooms.values() if seat.grant.room.asks]
        try:
            fresh, views, grants = await run(_ask, identity, subscriptions, seats)
        except (DatabaseError, InterfaceError) as error:
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
        now = (connection.identity, connection.rights, list(connection.subscriptions.values()))
        if now == (identity, rights, subscriptions):
            break  # else something changed again while we asked
    connection.identity = fresh
    asked = list(zip(subscriptions, views, strict=True))
    sitting = list(connection.rooms.values())
    if any(view is None or view.scope != s.view.scope for s, view in asked) or any(
        s.grant != grant for s, grant in zip(seats, grants, strict=True) if s in sitting
    ):
        connection.close(CloseCode.PERMISSIONS_CHANGED)
        return
    for subscription, view in asked:
        assert view is not None
        subscription.view, subscription.rights = view, rights
        if subscription.begin is not None:
            hub.start(subscription, subscription.begin)
        else:
            release(subscription, hub.audiences[subscription.collection])


def _ask(
    identity: Identity, subscriptions: list[Subscription], seats: list[Seat]
) -> tuple[Identity | None, list[View | None], list[RoomGrant | None]]:
    user = identity.user
    if user is not None:
        user = reloaded(user)
        if user is None:
            return None, [], []
        identity = replace(identity, user=user)
    limits = conf.limits
    views = [view_again(limits, each.asked, identity) for each in subscriptions]
    return identity, views, [seat.grant.room.grant(identity, seat.key[1]) for seat in seats]

"""When rights change: what a connection watches is frozen at once, and thaws or ends.

A subscription whose scope is still the same goes on from where it stood, nothing lost. One that
may see something else ends the connection with 4201: its client comes back and fetches afresh.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from django.db import Error as DatabaseFailure

from ..auth.users import reloaded, same_user
from ..conf import conf
from ..declarations.room import RoomGrant
from ..delivery.catchup import release
from ..delivery.query import view_again
from ..delivery.table import Begin, Subscription, View
from ..identity import Identity
from ..log.cursor import Position
from ..rooms.local_room import Seat
from ..utils.concurrency import run
from ..wire.codes import CloseCode

if TYPE_CHECKING:
    from ..transport.connection import Connection
    from .hub import Hub

logger = logging.getLogger(__name__)


def freeze(hub: Hub, connection: Connection) -> None:
    """Tell the connection nothing more of any collection. At once: not a byte follows.

    Each subscription keeps how it goes on from where it is. Again for what came meanwhile.
    """
    for subscription in connection.subscriptions.values():
        if subscription.starting is not None:
            subscription.starting.cancel()
            subscription.starting = None
        feed = hub.following.feeds.get(subscription.collection)
        table = hub.following.audiences[subscription.collection].table
        if feed is None:
            # what a snapshot held back follows it, should that begin anew: some of it was shown
            subscription.held = subscription.held or []
            table.add(subscription)
        else:
            table.discard(subscription)
            seq = subscription.unchecked[0] - 1 if subscription.unchecked else feed.seq
            subscription.begin = subscription.begin or Begin(Position(feed.epoch, seq))
            subscription.unchecked = None


async def thaw(hub: Hub, connection: Connection) -> None:
    """Ask anew what the identity may see; go on where that is the same, else close."""
    while True:
        freeze(hub, connection)
        if connection.identity is None:
            return
        rights, look = connection.rights, Look.at(connection, connection.identity)
        try:
            fresh, views, grants = await run(_ask, look)
        except DatabaseFailure as error:
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
        if now == (look.identity, rights, look.subscriptions):
            break  # else something changed again while we asked
    connection.identity = fresh
    asked = list(zip(look.subscriptions, views, strict=True))
    sitting = list(connection.rooms.values())
    seats = zip(look.seats, grants, strict=True)
    if not _same(asked, [(seat, grant) for seat, grant in seats if seat in sitting]):
        connection.close(CloseCode.PERMISSIONS_CHANGED)
        return
    for subscription, view in asked:
        assert view is not None
        subscription.view, subscription.rights = view, rights
        if subscription.begin is not None:
            hub.start(subscription, subscription.begin)
        else:
            release(subscription, hub.following.audiences[subscription.collection])


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """A connection and what it was granted, as of one moment."""

    connection: Connection
    identity: Identity
    subscriptions: list[Subscription]
    seats: list[Seat]

    @classmethod
    def at(cls, connection: Connection, identity: Identity) -> Look:
        """As of now."""
        seats = [seat for seat in connection.rooms.values() if seat.grant.room.asks]
        return cls(connection, identity, list(connection.subscriptions.values()), seats)


def in_doubt(looks: Iterable[Look]) -> list[Connection]:
    """Those who would not be granted the same now. In a worker thread; raises database errors.

    For connections that are new: what changed between their coming and the first look at their
    user's rights shows nowhere else, where no signal told of it.
    """
    return [look.connection for look in looks if not _holds(look)]


def _holds(look: Look) -> bool:
    try:
        fresh, views, grants = _ask(look)
    except DatabaseFailure:
        raise
    except Exception:
        return False  # asked again, it closes the connection
    return (
        fresh is not None
        and same_user(fresh.user, look.identity.user)
        and _same(
            list(zip(look.subscriptions, views, strict=True)),
            list(zip(look.seats, grants, strict=True)),
        )
    )


def _same(
    asked: list[tuple[Subscription, View | None]], granted: list[tuple[Seat, RoomGrant | None]]
) -> bool:
    return all(view is not None and view.scope == s.view.scope for s, view in asked) and all(
        seat.grant == grant for seat, grant in granted
    )


def _ask(look: Look) -> tuple[Identity | None, list[View | None], list[RoomGrant | None]]:
    """The identity as it is now, None where its user is gone, and what it would be granted."""
    identity, user = look.identity, look.identity.user
    if user is not None:
        user = reloaded(user)
        if user is None:
            return None, [], []
        identity = replace(identity, user=user)
    limits = conf.limits
    views = [view_again(limits, each.asked, identity) for each in look.subscriptions]
    return identity, views, [seat.grant.room.grant(identity, seat.key[1]) for seat in look.seats]

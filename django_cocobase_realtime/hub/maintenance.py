"""What a hub does by the clock: poll and trim the log, tell cursors, look after credentials."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..auth import backends
from ..auth.rights import Fingerprint, fingerprints
from ..conf import conf
from ..declarations.registry import registry
from ..identity import Identity
from ..log.cursor import Position
from ..log.cursor import encode as encode_cursor
from ..log.follow import behind
from ..log.retention import trim as trim_log
from ..transport.connection import NATIVE, Connection
from ..utils.concurrency import run
from ..wire import frames
from ..wire.codes import CloseCode
from .reauthorization import Look, in_doubt

if TYPE_CHECKING:
    from .hub import Hub

logger = logging.getLogger(__name__)

Proof = tuple[str, tuple[tuple[str, str], ...]]
"""A credential, and what its identity keeps to see whether it still holds."""

AGAIN = 1.0  # seconds before a task that failed begins anew
TRIM = 60.0  # seconds between trims of the log, about
CURSORS = 30.0  # seconds after which a quiet subscription is told its cursor


async def keep_on(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do what is done for ever, again should it stumble: nobody would notice that it is gone."""
    while True:
        try:
            await work()
            return
        except Exception:
            logger.exception("A task of the hub failed, and begins anew.")
        await asyncio.sleep(AGAIN)


async def poll(hub: Hub) -> None:
    """Look for what no bell told of: a layer loses messages, other processes have none."""
    while True:
        await asyncio.sleep(conf.log.poll)
        positions: dict[str, dict[str, Position]] = {}
        for name, feed in hub.following.feeds.items():
            positions.setdefault(feed.using, {})[name] = feed.position
        for using, each in positions.items():
            try:
                names = await hub.following.threads[using].run(behind, using, each)
            except Exception as error:
                logger.warning("The log cannot be read: %r", error)
                continue
            for name in names:
                hub.following.ring(name)


async def trim() -> None:
    """Trim all streams, followed or not, lest the log grow for ever.

    Several processes take turns by chance.
    """
    while True:
        await asyncio.sleep(TRIM * (0.5 + random.random()))  # noqa: S311
        settings = conf.log
        for using in sorted({each.database for each in registry if each.durable}):
            work = partial(
                trim_log, using, max_age=settings.max_age, max_events=settings.max_events
            )
            try:
                await run(work)
            except Exception as error:
                logger.warning("The log could not be trimmed: %r", error)


async def tell_cursors(hub: Hub) -> None:
    """Now and then, tell quiet subscriptions how far they are, lest their cursor age out."""
    while True:
        await asyncio.sleep(CURSORS)
        for name, feed in list(hub.following.feeds.items()):
            cursor = encode_cursor(name, feed.epoch, feed.seq)
            audience = hub.following.audiences.get(name)
            if audience is None:
                continue
            for subscription in audience.table:
                if audience.table.seen(subscription) < feed.seq and not subscription.unchecked:
                    subscription.seen = feed.seq
                    if subscription.connection.dialect != NATIVE:
                        continue
                    frame = frames.cursor(subscription.name, cursor)
                    subscription.connection.writer.push(frames.encode(frame))


async def audit(hub: Hub) -> None:
    """Close what no longer holds: the net below the signals, which other processes miss.

    And look anew at what those may see whose rights are not what they were at the last look.
    """
    known: dict[Any, Fingerprint] = {}
    looked: dict[Connection, Identity] = {}
    while True:
        await asyncio.sleep(conf.revocation_poll)
        holders = {c: c.identity for c in hub.connections.values() if c.identity is not None}
        identities = {_proof(identity): identity for identity in holders.values()}
        if not identities:
            looked = {}
            continue
        new = [
            Look.at(connection, identity)
            for connection, identity in holders.items()
            if identity.user is not None and looked.get(connection) is not identity
        ]
        try:
            dead = await run(_dead, identities)
            found = await run(fingerprints, list(identities.values()))
            doubted = await run(in_doubt, new)
        except Exception as error:
            logger.warning("Credentials could not be checked: %r", error)
            continue
        for connection in holders:
            if connection.identity is not None and _proof(connection.identity) in dead:
                connection.close(CloseCode.BAD_CREDENTIAL)
        moved = {pk for pk, rights in found.items() if known.get(pk, rights) != rights}
        known, looked = found, holders
        hub.reconsider(
            connection
            for connection, identity in holders.items()
            if connection.identity is identity
            and (connection in doubted or (identity.user is not None and identity.user.pk in moved))
        )


def _proof(identity: Identity) -> Proof:
    return identity.credential, tuple(sorted(identity.private.items()))


def _dead(identities: Mapping[Proof, Identity]) -> set[Proof]:
    """Which of them no longer hold. In a worker thread.

    Answers name credentials. Of one name there may be two tokens, of before and after a new
    password: these are asked about one after the other.
    """
    found: set[Proof] = set()
    left = dict.fromkeys(identities)
    while left:
        asked: dict[str, Proof] = {}
        for proof in left:
            asked.setdefault(proof[0], proof)
        dead = backends.dead([identities[proof] for proof in asked.values()])
        found |= {proof for name, proof in asked.items() if name in dead}
        for proof in asked.values():
            del left[proof]
    return found

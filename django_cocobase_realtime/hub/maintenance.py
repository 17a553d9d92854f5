"""What a hub does by the clock: poll and trim the log, tell cursors, look after credentials."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from ..auth import backends
from ..auth.users import Fingerprint, permission_fingerprints
from ..conf import conf
from ..declarations.registry import registry
from ..identity import Identity
from ..log.cursor import Position
from ..log.cursor import encode as encode_cursor
from ..log.reader import streams_behind
from ..log.retention import trim as trim_log
from ..transport.connection import NATIVE, Connection
from ..utils.concurrency import run_in_threadpool
from ..wire import frames
from ..wire.codes import CloseCode
from .reauthorization import GrantSnapshot, find_changed_grants

if TYPE_CHECKING:
    from .hub import Hub

logger = logging.getLogger(__name__)

CredentialKey = tuple[str, tuple[tuple[str, str], ...]]
"""A credential, and what its identity keeps to see whether it still holds."""

RESTART_DELAY = 1.0  # seconds before a task that failed begins anew
TRIM_INTERVAL = 60.0  # seconds between trims of the log, about
CURSOR_INTERVAL = 30.0  # seconds after which a quiet subscription is told its cursor


async def run_forever(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Do what is done for ever, again should it stumble: nobody would notice that it is gone."""
    while True:
        try:
            await work()
            return
        except Exception:
            logger.exception("A task of the hub failed, and begins anew.")
        await asyncio.sleep(RESTART_DELAY)


async def poll_log(hub: Hub) -> None:
    """Look for what no bell told of: a layer loses messages, other processes have none."""
    while True:
        await asyncio.sleep(conf.log.poll)
        positions: dict[str, dict[str, Position]] = {}
        for name, feed in hub.topics.tailers.items():
            positions.setdefault(feed.using, {})[name] = feed.position
        for using, each in positions.items():
            try:
                names = await hub.topics.threads[using].run(streams_behind, using, each)
            except Exception as error:
                logger.warning("The log cannot be read: %r", error)
                continue
            for name in names:
                hub.topics.notify(name)


async def trim_logs() -> None:
    """Trim all streams, followed or not, lest the log grow for ever.

    Several processes take turns by chance.
    """
    while True:
        await asyncio.sleep(TRIM_INTERVAL * (0.5 + random.random()))  # noqa: S311
        settings = conf.log
        for using in sorted({each.database for each in registry if each.durable}):
            work = partial(
                trim_log, using, max_age=settings.max_age, max_events=settings.max_events
            )
            try:
                await run_in_threadpool(work)
            except Exception as error:
                logger.warning("The log could not be trimmed: %r", error)


async def send_cursor_heartbeats(hub: Hub) -> None:
    """Now and then, tell quiet subscriptions how far they are, lest their cursor age out."""
    while True:
        await asyncio.sleep(CURSOR_INTERVAL)
        for name, feed in list(hub.topics.tailers.items()):
            cursor = encode_cursor(name, feed.epoch, feed.seq)
            audience = hub.topics.topics.get(name)
            if audience is None:
                continue
            for subscription in audience.table:
                if (
                    audience.table.last_seq(subscription) < feed.seq
                    and not subscription.pending_row_checks
                ):
                    subscription.last_seq = feed.seq
                    if subscription.connection.dialect != NATIVE:
                        continue
                    frame = frames.cursor(subscription.name, cursor)
                    subscription.connection.writer.push(frames.encode(frame))


async def revalidate_credentials(hub: Hub) -> None:
    """Close what no longer holds: the net below the signals, which other processes miss.

    And look anew at what those may see whose rights are not what they were at the last look.
    """
    known: dict[Any, Fingerprint] = {}
    looked: dict[Connection, Identity] = {}
    while True:
        await asyncio.sleep(conf.revocation_poll)
        holders = {c: c.identity for c in hub.connections.values() if c.identity is not None}
        identities = {_credential_key(identity): identity for identity in holders.values()}
        if not identities:
            looked = {}
            continue
        new = [
            GrantSnapshot.at(connection, identity)
            for connection, identity in holders.items()
            if identity.user is not None and looked.get(connection) is not identity
        ]
        try:
            dead = await run_in_threadpool(_find_revoked, identities)
            found = await run_in_threadpool(permission_fingerprints, list(identities.values()))
            doubted = await run_in_threadpool(find_changed_grants, new)
        except Exception as error:
            logger.warning("Credentials could not be checked: %r", error)
            continue
        for connection in holders:
            if connection.identity is not None and _credential_key(connection.identity) in dead:
                connection.close(CloseCode.BAD_CREDENTIAL)
        moved = {pk for pk, rights in found.items() if known.get(pk, rights) != rights}
        known, looked = found, holders
        hub.request_reauthorization(
            connection
            for connection, identity in holders.items()
            if connection.identity is identity
            and (connection in doubted or (identity.user is not None and identity.user.pk in moved))
        )


def _credential_key(identity: Identity) -> CredentialKey:
    return identity.credential, tuple(sorted(identity.private.items()))


def _find_revoked(identities: Mapping[CredentialKey, Identity]) -> set[CredentialKey]:
    """Which of them no longer hold. In a worker thread.

    Answers name credentials. Of one name there may be two tokens, of before and after a new
    password: these are asked about one after the other.
    """
    found: set[CredentialKey] = set()
    left = dict.fromkeys(identities)
    while left:
        asked: dict[str, CredentialKey] = {}
        for proof in left:
            asked.setdefault(proof[0], proof)
        dead = backends.find_revoked([identities[proof] for proof in asked.values()])
        found |= {proof for name, proof in asked.items() if name in dead}
        for proof in asked.values():
            del left[proof]
    return found

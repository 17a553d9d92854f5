"""Presence in Redis: each change is one Lua script, which Redis runs as one step."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from ..conf import PresenceSettings, conf
from ..events import Member, PresenceChange
from .base import (
    EnterResult,
    MemberList,
    PresenceBackend,
    PresenceEntry,
    PresenceUnavailable,
    RoomConnection,
    RoomInfo,
    RoomKey,
    RoomListing,
)
from .redis_scripts import SCRIPTS

KEY_PREFIX = "cocobase:presence:"
TIMEOUT = 5.0  # seconds that Redis may take


class RedisPresence(PresenceBackend):
    """One Redis 6 or newer, alone or behind a failover; not a cluster, since scripts name keys of
    many rooms. Leases are measured by Redis's clock.

    What Redis forgets (it was restarted without persistence, flushed) the servers enter again
    within a third of the lease.
    """

    def __init__(self, settings: PresenceSettings) -> None:
        url = settings.url or layer_url()
        self._redis: Redis = Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            # each call once: what was done and not answered may not be answered "as before"
            retry=Retry(NoBackoff(), 0),
        )
        self._scripts = {name: self._redis.register_script(text) for name, text in SCRIPTS.items()}

    def _run(self, script: str, *args: Any) -> Any:
        with _unavailable():
            return self._scripts[script](keys=[KEY_PREFIX], args=args)

    def renew_lease(self, server: str, seconds: float) -> bool:
        return bool(self._run("renew", server, int(seconds * 1000)))

    def enter(self, entry: PresenceEntry, *, create: bool = True) -> EnterResult | None:
        found = self._run(
            "enter",
            _id(entry.key),
            *entry.key,
            entry.connection,
            entry.server,
            entry.member,
            entry.name,
            entry.title,
            "" if entry.claimed is None else f"={entry.claimed}",
            "" if entry.state is None else _text(entry.state),
            int(create),
        )
        if not found:
            return None
        info, move = found
        return EnterResult(_info(info), _change(move) if move else None)

    def leave(self, key: RoomKey, connection: str) -> PresenceChange | None:
        move = self._run("leave", _id(key), connection)
        return _change(move) if move else None

    def mark_disconnected(self, places: Sequence[RoomConnection], seconds: float) -> None:
        names = [f"{connection} {_id(key)}" for key, connection in places]
        self._run("linger", int(seconds * 1000), *names)

    def set_state(
        self, key: RoomKey, connection: str, state: dict[str, Any]
    ) -> PresenceChange | None:
        move = self._run("update", _id(key), connection, _text(state))
        return _change(move) if move else None

    def list_members(self, key: RoomKey) -> MemberList:
        version, members = self._run("roster", _id(key))
        return MemberList(int(version), _members(members)) if version else MemberList()

    def get_room(self, key: RoomKey) -> RoomInfo | None:
        found = self._run("info", _id(key))
        return _info(found) if found else None

    def versions(self, keys: Iterable[RoomKey]) -> dict[RoomKey, int]:
        wanted = list(keys)
        pipeline = self._redis.pipeline(transaction=False)
        for key in wanted:
            pipeline.hget(f"{KEY_PREFIX}room:{_id(key)}", "version")
        with _unavailable():
            found = zip(wanted, pipeline.execute(), strict=True)
        return {key: int(version) for key, version in found if version}

    def expire(self) -> list[PresenceChange]:
        return [_change(move) for move in self._run("sweep")]

    def list_rooms(self, project: str) -> list[RoomListing]:
        return sorted(
            (
                RoomListing(name, _info(info), _members(members))
                for name, info, members in self._run("listing", project)
                if info
            ),
            key=lambda listing: listing.name,
        )

    def acquire_key(self, name: str, seconds: float) -> bool:
        with _unavailable():
            return bool(
                self._redis.set(f"{KEY_PREFIX}claim:{name}", 1, nx=True, px=int(seconds * 1000))
            )

    def release_key(self, name: str) -> None:
        with _unavailable():
            self._redis.delete(f"{KEY_PREFIX}claim:{name}")

    def close(self) -> None:
        self._redis.close()


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except RedisError as error:
        raise PresenceUnavailable(repr(error)) from error


def layer_url() -> str:
    """The address of the channel layer's first Redis. Raises ``ImproperlyConfigured``."""
    layer = getattr(django_settings, "CHANNEL_LAYERS", {}).get(conf.channel_layer, {})
    hosts = layer.get("CONFIG", {}).get("hosts") or []
    host = hosts[0] if hosts else None
    if isinstance(host, dict):
        host = host.get("address")
    if isinstance(host, str):
        return host
    if isinstance(host, tuple | list) and len(host) == 2:
        return f"redis://{host[0]}:{host[1]}/0"
    raise ImproperlyConfigured(
        "PRESENCE needs the 'URL' of a Redis: the channel layer names none by address."
    )


def _id(key: RoomKey) -> str:
    return f"{len(key[0])}:{key[0]}{key[1]}"


def _text(state: dict[str, Any]) -> str:
    return json.dumps(state, separators=(",", ":"), sort_keys=True)


def _member(value: dict[str, Any]) -> Member:
    claimed = value["claimed"]
    return Member(
        value["id"], value["name"], json.loads(value["state"]), claimed[1:] if claimed else None
    )


def _members(texts: Iterable[str]) -> list[Member]:
    values = sorted((json.loads(text) for text in texts), key=lambda v: (int(v["place"]), v["id"]))
    return [_member(value) for value in values]


def _info(found: list[Any]) -> RoomInfo:
    title, created_by, created_at, version, participants = found
    return RoomInfo(title, created_by, float(created_at), int(version), int(participants))


def _change(found: list[Any]) -> PresenceChange:
    event, project, room, text, participants, version = found
    return PresenceChange(
        project,
        room,
        cast("Literal['joined', 'left', 'updated']", event),
        _member(json.loads(text)),
        int(participants),
        int(version),
    )

"""The presence backend that uses Redis. Changes are Lua scripts, which are atomic."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, cast

from redis import Redis, RedisError

from ..events import Member, PresenceChange
from ..options import PresenceSettings
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
from .redis_hosts import connection_pool, presence_host
from .redis_scripts import SCRIPTS

KEY_PREFIX = "cocobase:presence:"  # of all keys in Redis


class RedisPresence(PresenceBackend):
    """Stores presence in Redis 6 or newer, whose clock is used for all times.

    It works with one Redis, which Sentinel may replace by another, but not with several or with a
    cluster, because a script uses the keys of several rooms. If Redis loses its data, for example
    in a restart, the server processes enter their connections again within a third of the lease.
    """

    def __init__(self, settings: PresenceSettings) -> None:
        self._redis: Redis = Redis.from_pool(connection_pool(presence_host(settings)))
        # scripts by the name of the method that runs them
        self._scripts = {name: self._redis.register_script(lua) for name, lua in SCRIPTS.items()}

    def _run(self, script: str, *args: Any) -> Any:
        with _redis_errors():
            return self._scripts[script](keys=[KEY_PREFIX], args=args)

    def renew_lease(self, server: str, seconds: float) -> bool:
        return bool(self._run("renew_lease", server, int(seconds * 1000)))

    def enter(self, entry: PresenceEntry, *, create: bool = True) -> EnterResult | None:
        result = self._run(
            "enter",
            _id(entry.key),
            *entry.key,
            entry.connection,
            entry.server,
            entry.member,
            entry.name,
            entry.title,
            # "=" distinguishes an empty id from none
            "" if entry.claimed is None else f"={entry.claimed}",
            "" if entry.state is None else _text(entry.state),
            int(create),
        )
        if not result:
            return None
        info, change = result
        return EnterResult(_info(info), _change(change) if change else None)

    def leave(self, key: RoomKey, connection: str) -> PresenceChange | None:
        change = self._run("leave", _id(key), connection)
        return _change(change) if change else None

    def mark_disconnected(self, connections: Sequence[RoomConnection], seconds: float) -> None:
        names = [f"{connection} {_id(key)}" for key, connection in connections]
        self._run("mark_disconnected", int(seconds * 1000), *names)

    def set_state(
        self, key: RoomKey, connection: str, state: dict[str, Any]
    ) -> PresenceChange | None:
        change = self._run("set_state", _id(key), connection, _text(state))
        return _change(change) if change else None

    def list_members(self, key: RoomKey) -> MemberList:
        version, members = self._run("list_members", _id(key))
        return MemberList(int(version), _members(members)) if version else MemberList()

    def get_room(self, key: RoomKey) -> RoomInfo | None:
        info = self._run("get_room", _id(key))
        return _info(info) if info else None

    def versions(self, keys: Iterable[RoomKey]) -> dict[RoomKey, int]:
        keys = list(keys)
        pipeline = self._redis.pipeline(transaction=False)
        for key in keys:
            pipeline.hget(f"{KEY_PREFIX}room:{_id(key)}", "version")
        with _redis_errors():
            versions = zip(keys, pipeline.execute(), strict=True)
        return {key: int(version) for key, version in versions if version}

    def expire(self) -> list[PresenceChange]:
        return [_change(change) for change in self._run("expire")]

    def list_rooms(
        self, project: str, after: str = "", limit: int | None = None
    ) -> list[RoomListing]:
        rooms = self._run(
            "list_rooms", project, _id((project, after)), -1 if limit is None else limit
        )
        return [
            RoomListing(name, _info(info), _members(members))
            for name, info, members in rooms
            if info
        ]

    def acquire_key(self, name: str, seconds: float) -> bool:
        with _redis_errors():
            return bool(
                self._redis.set(f"{KEY_PREFIX}claim:{name}", 1, nx=True, px=int(seconds * 1000))
            )

    def release_key(self, name: str) -> None:
        with _redis_errors():
            self._redis.delete(f"{KEY_PREFIX}claim:{name}")

    def close(self) -> None:
        self._redis.close()


@contextmanager
def _redis_errors() -> Iterator[None]:
    """Replace exceptions of Redis by `PresenceUnavailable`."""
    try:
        yield
    except RedisError as error:
        raise PresenceUnavailable(repr(error)) from error


def _id(key: RoomKey) -> str:
    """Return the name of a room in keys of Redis, which is unique among all projects."""
    return f"{len(key[0])}:{key[0]}{key[1]}"


def _text(state: dict[str, Any]) -> str:
    """Return a state as JSON, which is the same for equal states."""
    return json.dumps(state, separators=(",", ":"), sort_keys=True)


def _member(value: dict[str, Any]) -> Member:
    claimed = value["claimed"]
    return Member(
        value["id"], value["name"], json.loads(value["state"]), claimed[1:] if claimed else None
    )


def _members(texts: Iterable[str]) -> list[Member]:
    values = [json.loads(text) for text in texts]
    values.sort(key=lambda value: (int(value["place"]), value["id"]))
    return [_member(value) for value in values]


def _info(values: list[Any]) -> RoomInfo:
    title, created_by, verified, created_at, version, participants = values
    return RoomInfo(
        title,
        created_by,
        float(created_at),
        int(version),
        int(participants),
        None if verified is None else verified == "1",
    )


def _change(values: list[Any]) -> PresenceChange:
    event, project, room, member, participants, version = values
    return PresenceChange(
        project,
        room,
        cast("Literal['joined', 'left', 'updated']", event),
        _member(json.loads(member)),
        int(participants),
        int(version),
    )

"""Presence in the project's own database: the default, right across processes without a Redis."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from django.db import OperationalError, connections
from django.db.models import Exists, OuterRef, Q

from ..conf import PresenceSettings
from ..events import Member, PresenceChange
from ..models import Claim, PresenceConnection, PresenceMember, PresenceRoom, PresenceServer
from ..utils.transactions import database_for, write_transaction
from .base import (
    EnterResult,
    MemberList,
    PresenceBackend,
    PresenceEntry,
    RoomConnection,
    RoomInfo,
    RoomKey,
    RoomListing,
)
from .clock import DatabaseClock

CHUNK_SIZE = 400  # rooms named in one query, rows deleted by one
MAX_TEXT_LENGTH = 255
MAX_ATTEMPTS = 50


class DatabasePresence(PresenceBackend):
    """Four small tables. A room's row is locked while its members change, so changes of one room
    wait for each other and those of different rooms do not (on SQLite all writers wait).

    Leases are measured by the database's clock: those of the servers may differ. Inside a caller's
    transaction everything is part of it.
    """

    def __init__(self, settings: PresenceSettings) -> None:
        self._clock = DatabaseClock()

    @property
    def using(self) -> str:
        """The database that the project's routers choose."""
        return database_for(PresenceRoom)

    def renew_lease(self, server: str, seconds: float) -> bool:
        servers = PresenceServer.objects.using(self.using)
        until = self._clock.now(self.using) + seconds
        if servers.filter(pk=server).update(expires_at=until):
            return True
        # one statement, which waits for other writers (read first, SQLite would fail at once)
        servers.bulk_create(
            [PresenceServer(pk=server, expires_at=until)],
            update_conflicts=True,
            unique_fields=["pk"],
            update_fields=["expires_at"],
        )
        return False

    def enter(self, entry: PresenceEntry, *, create: bool = True) -> EnterResult | None:
        using = self.using
        now = self._clock.now(using)
        with write_transaction(using):
            room = (
                self._get_or_create(using, entry, now) if create else self._lock(using, entry.key)
            )
            if room is None:
                return None
            held = PresenceMember.objects.using(using).filter(room=room, member=entry.member)
            row = held.first()
            state = entry.state
            if state is None:
                state = {} if row is None else json.loads(row.state)
            new = Member(entry.member, entry.name[:MAX_TEXT_LENGTH], state, entry.claimed)
            move = None
            if row is None:
                PresenceMember.objects.using(using).create(
                    room=room,
                    member=new.id,
                    name=new.name,
                    claimed=new.claimed,
                    state=json.dumps(state),
                )
                room.participants += 1
                move = self._change(room, "joined", new)
            elif new != _member(row):
                held.update(name=new.name, claimed=new.claimed, state=json.dumps(state))
                move = self._change(room, "updated", new)
            PresenceConnection.objects.using(using).bulk_create(
                [
                    PresenceConnection(
                        room=room,
                        connection=entry.connection,
                        member=entry.member,
                        server=entry.server,
                    )
                ],
                update_conflicts=True,
                unique_fields=["room", "connection"],
                update_fields=["member", "server", "leaves_at"],
            )
            if move is not None:
                room.save(using=using, update_fields=["version", "participants"])
            return EnterResult(_info(room), move)

    def _lock(self, using: str, key: RoomKey) -> PresenceRoom | None:
        rooms = PresenceRoom.objects.using(using).select_for_update()
        return rooms.filter(project=key[0], name=key[1]).first()

    def _get_or_create(self, using: str, entry: PresenceEntry, now: float) -> PresenceRoom:
        for _ in range(MAX_ATTEMPTS):
            room = self._lock(using, entry.key)
            if room is not None:
                return room
            # another may open it at the same time, or close it between the two statements
            new = PresenceRoom(
                project=entry.key[0],
                name=entry.key[1],
                title=entry.title[:MAX_TEXT_LENGTH],
                created_by=(entry.claimed or entry.member)[:MAX_TEXT_LENGTH],
                created_at=now,
                version=int(now * 1_000_000),
            )
            PresenceRoom.objects.using(using).bulk_create([new], ignore_conflicts=True)
        raise OperationalError("A room was opened and closed all the time.")

    def leave(self, key: RoomKey, connection: str) -> PresenceChange | None:
        using = self.using
        with write_transaction(using):
            room = self._lock(using, key)
            if room is None:
                return None
            moves = self._remove(using, room, Q(connection=connection))
        return moves[0] if moves else None

    def _remove(self, using: str, room: PresenceRoom, which: Q) -> list[PresenceChange]:
        """Connections of a locked room, and the members who have no other."""
        places = PresenceConnection.objects.using(using).filter(room=room)
        gone = set(places.filter(which).values_list("member", flat=True))
        if not gone:
            return []
        places.filter(which).delete()
        moves = []
        names = sorted(gone)
        for start in range(0, len(names), CHUNK_SIZE):
            part = names[start : start + CHUNK_SIZE]
            still = set(places.filter(member__in=part).values_list("member", flat=True))
            left = PresenceMember.objects.using(using).filter(
                room=room, member__in=[name for name in part if name not in still]
            )
            for row in left.order_by("pk"):
                room.participants -= 1
                moves.append(self._change(room, "left", _member(row)))
            left.delete()
        if room.participants <= 0:
            room.delete(using=using)
        elif moves:
            room.save(using=using, update_fields=["version", "participants"])
        return moves

    def mark_disconnected(self, places: Sequence[RoomConnection], seconds: float) -> None:
        using = self.using
        until = self._clock.now(using) + seconds
        names = [connection for _, connection in places]
        wanted = defaultdict(set)
        for key, connection in places:
            wanted[connection].add(key)
        rows = PresenceConnection.objects.using(using)
        with write_transaction(using):
            for start in range(0, len(names), CHUNK_SIZE):
                found = rows.filter(connection__in=names[start : start + CHUNK_SIZE]).order_by("pk")
                pks = [
                    pk
                    for pk, connection, *key in found.values_list(
                        "pk", "connection", "room__project", "room__name"
                    )
                    if tuple(key) in wanted[connection]
                ]
                for first in range(0, len(pks), CHUNK_SIZE):
                    rows.filter(pk__in=pks[first : first + CHUNK_SIZE]).update(leaves_at=until)

    def set_state(
        self, key: RoomKey, connection: str, state: dict[str, Any]
    ) -> PresenceChange | None:
        using = self.using
        with write_transaction(using):
            room = self._lock(using, key)
            if room is None:
                return None
            places = PresenceConnection.objects.using(using).filter(room=room)
            member = places.filter(connection=connection).values_list("member", flat=True).first()
            held = PresenceMember.objects.using(using).filter(room=room, member=member)
            row = None if member is None else held.first()
            if row is None or json.loads(row.state) == state:
                return None
            row.state = json.dumps(state)
            row.save(using=using, update_fields=["state"])
            move = self._change(room, "updated", _member(row))
            room.save(using=using, update_fields=["version"])
            return move

    def list_members(self, key: RoomKey) -> MemberList:
        # one statement, so that the list and its version belong together
        rows = PresenceMember.objects.using(self.using).select_related("room").order_by("pk")
        found = list(rows.filter(room__project=key[0], room__name=key[1]))
        return (
            MemberList(found[0].room.version, list(map(_member, found))) if found else MemberList()
        )

    def get_room(self, key: RoomKey) -> RoomInfo | None:
        rooms = PresenceRoom.objects.using(self.using)
        room = rooms.filter(project=key[0], name=key[1]).first()
        return None if room is None else _info(room)

    def versions(self, keys: Iterable[RoomKey]) -> dict[RoomKey, int]:
        projects: dict[str, list[str]] = {}
        for project, name in keys:
            projects.setdefault(project, []).append(name)
        rooms = PresenceRoom.objects.using(self.using)
        found: dict[RoomKey, int] = {}
        for project, names in projects.items():
            for start in range(0, len(names), CHUNK_SIZE):
                part = rooms.filter(project=project, name__in=names[start : start + CHUNK_SIZE])
                for name, version in part.values_list("name", "version"):
                    found[project, name] = version
        return found

    def expire(self) -> list[PresenceChange]:
        using = self.using
        now = self._clock.now(using)
        # the lease first: a server that comes back to find none enters all its connections again
        servers = PresenceServer.objects.using(using)
        if servers.filter(expires_at__lte=now).exists():
            servers.filter(expires_at__lte=now).delete()
        held = Exists(PresenceServer.objects.using(using).filter(pk=OuterRef("server")))
        due = Q(leaves_at__lte=now) | Q(~held)
        places = PresenceConnection.objects.using(using).filter(due)
        rooms = places.order_by("room").values_list("room", flat=True).distinct()
        moves: list[PresenceChange] = []
        for pk in list(rooms):
            with write_transaction(using):
                room = PresenceRoom.objects.using(using).select_for_update().filter(pk=pk).first()
                if room is not None:
                    moves += self._remove(using, room, due)
        claims = Claim.objects.using(using).filter(expires_at__lte=now)
        if claims.exists():
            claims.delete()
        return moves

    def list_rooms(self, project: str) -> list[RoomListing]:
        rooms = PresenceRoom.objects.using(self.using).filter(project=project)
        found = list(rooms.order_by("name").prefetch_related("members"))
        return [
            RoomListing(
                room.name,
                _info(room),
                [_member(row) for row in sorted(room.members.all(), key=lambda row: row.pk)],
            )
            for room in found
        ]

    def acquire_key(self, name: str, seconds: float) -> bool:
        now = self._clock.now(self.using)
        digest, until = _digest(name), now + seconds
        claims = Claim.objects.using(self.using)
        if claims.filter(pk=digest, expires_at__lte=now).update(expires_at=until):
            return True
        with connections[self.using].cursor() as cursor:
            table = connections[self.using].ops.quote_name(Claim._meta.db_table)
            cursor.execute(
                f"INSERT INTO {table} (name, expires_at) VALUES (%s, %s) "  # noqa: S608
                "ON CONFLICT DO NOTHING",
                [digest, until],
            )
            return bool(cursor.rowcount == 1)

    def release_key(self, name: str) -> None:
        Claim.objects.using(self.using).filter(pk=_digest(name)).delete()

    def _change(
        self, room: PresenceRoom, event: Literal["joined", "left", "updated"], member: Member
    ) -> PresenceChange:
        room.version += 1
        return PresenceChange(
            room.project, room.name, event, member, room.participants, room.version
        )


def _member(row: PresenceMember) -> Member:
    return Member(row.member, row.name, json.loads(row.state), row.claimed)


def _info(room: PresenceRoom) -> RoomInfo:
    return RoomInfo(room.title, room.created_by, room.created_at, room.version, room.participants)


def _digest(name: str) -> str:
    return hashlib.blake2s(name.encode()).hexdigest()

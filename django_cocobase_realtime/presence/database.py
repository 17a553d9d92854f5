"""The presence backend that uses the project's database, which is the default."""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from django.db import OperationalError, connections
from django.db.models import BigIntegerField, Exists, Expression, FloatField, OuterRef, Q
from django.db.models.functions import Cast

from ..events import Member, PresenceChange
from ..models import Claim, PresenceConnection, PresenceMember, PresenceRoom, PresenceServer
from ..options import PresenceSettings
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
    chunks_by_project,
)

CHUNK_SIZE = 400  # rooms, members or connections in one statement
MAX_TEXT_LENGTH = 255  # characters of a name or title, as in the tables
MAX_ATTEMPTS = 50  # to lock a room that other processes create and delete


class DatabaseTime(Expression):
    """The time of the database at the start of the statement, in seconds since 1970.

    The clocks of server processes may differ, so only this time is used. SQLite has no clock other
    than that of the process.
    """

    output_field = FloatField()

    def as_sql(self, compiler: Any, connection: Any) -> tuple[str, tuple[Any, ...]]:
        """Return an SQL function for PostgreSQL, and a parameter for other databases."""
        return _time_sql(connection)


def _time_sql(connection: Any) -> tuple[str, tuple[Any, ...]]:
    if connection.vendor == "postgresql":
        return "EXTRACT(EPOCH FROM STATEMENT_TIMESTAMP())::float8", ()
    return "%s", (time.time(),)


class DatabasePresence(PresenceBackend):
    """Stores presence in tables of the project's database.

    The row of a room is locked while its members change. Changes of different rooms do not wait
    for each other, except on SQLite. If the caller has opened a transaction, everything is part of
    it.
    """

    def __init__(self, settings: PresenceSettings) -> None:
        pass

    @property
    def is_supported(self) -> bool:
        """Whether the database can store presence."""
        return connections[self.using].vendor != "mysql"

    @property
    def using(self) -> str:
        """The alias of the database, which the project's routers decide."""
        return database_for(PresenceRoom)

    def renew_lease(self, server: str, seconds: float) -> bool:
        servers = PresenceServer.objects.using(self.using)
        expires_at = DatabaseTime() + float(seconds)
        if servers.filter(pk=server).update(expires_at=expires_at):
            return True
        # one statement, because on SQLite, a transaction that reads before it writes fails if
        # another one has written in between
        servers.bulk_create(
            [PresenceServer(pk=server, expires_at=expires_at)],
            update_conflicts=True,
            unique_fields=["pk"],
            update_fields=["expires_at"],
        )
        return False

    def enter(self, entry: PresenceEntry, *, create: bool = True) -> EnterResult | None:
        using = self.using
        with write_transaction(using):
            room = self._get_or_create(using, entry) if create else self._lock(using, entry.key)
            if room is None:
                return None
            change = self._save_member(using, room, entry)
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
            if change is not None:
                room.save(using=using, update_fields=["version", "participants"])
            return EnterResult(_info(room), change)

    def _save_member(
        self, using: str, room: PresenceRoom, entry: PresenceEntry
    ) -> PresenceChange | None:
        """Store the member of an entry in a locked room; return the change, if there is one."""
        members = PresenceMember.objects.using(using).filter(room=room, member=entry.member)
        row = members.first()
        state = entry.state
        if state is None:
            state = {} if row is None else json.loads(row.state)
        member = Member(entry.member, entry.name[:MAX_TEXT_LENGTH], state, entry.claimed)
        if row is None:
            PresenceMember.objects.using(using).create(
                room=room,
                member=member.id,
                name=member.name,
                claimed=member.claimed,
                state=json.dumps(state),
            )
            room.participants += 1
            return self._change(room, "joined", member)
        if member == _member(row):
            return None
        members.update(name=member.name, claimed=member.claimed, state=json.dumps(state))
        return self._change(room, "updated", member)

    def _lock(self, using: str, key: RoomKey) -> PresenceRoom | None:
        rooms = PresenceRoom.objects.using(using).select_for_update()
        return rooms.filter(project=key[0], name=key[1]).first()

    def _get_or_create(self, using: str, entry: PresenceEntry) -> PresenceRoom:
        """Lock the room of an entry, after creating it if necessary, and return it."""
        for _ in range(MAX_ATTEMPTS):
            room = self._lock(using, entry.key)
            if room is not None:
                return room
            # another process may create it at the same time, or delete it before it is locked here
            new = PresenceRoom(
                project=entry.key[0],
                name=entry.key[1],
                title=entry.title[:MAX_TEXT_LENGTH],
                created_by=(entry.claimed or entry.member)[:MAX_TEXT_LENGTH],
                created_by_verified=entry.claimed is None,
                created_at=DatabaseTime(),
                # higher than all versions that a room with this name had before
                version=Cast(DatabaseTime() * 1_000_000.0, BigIntegerField()),
            )
            PresenceRoom.objects.using(using).bulk_create([new], ignore_conflicts=True)
        raise OperationalError("The room was created and deleted repeatedly by other processes.")

    def leave(self, key: RoomKey, connection: str) -> PresenceChange | None:
        using = self.using
        with write_transaction(using):
            room = self._lock(using, key)
            if room is None:
                return None
            departures = self._remove(using, room, Q(connection=connection))
        return departures[0] if departures else None

    def _remove(self, using: str, room: PresenceRoom, condition: Q) -> list[PresenceChange]:
        """Remove connections from a locked room, and members that have no other connection.

        Returns the departures.
        """
        connections = PresenceConnection.objects.using(using).filter(room=room)
        members = PresenceMember.objects.using(using).filter(room=room)
        # from here on by primary key, since more rows may match the condition as time passes
        removed = list(connections.filter(condition).values_list("pk", "member"))
        if not removed:
            return []
        for start in range(0, len(removed), CHUNK_SIZE):
            part = removed[start : start + CHUNK_SIZE]
            connections.filter(pk__in=[pk for pk, _ in part]).delete()
        departures = []
        names = sorted({member for _, member in removed})
        for start in range(0, len(names), CHUNK_SIZE):
            names_part = names[start : start + CHUNK_SIZE]
            present = set(
                connections.filter(member__in=names_part).values_list("member", flat=True)
            )
            leaving = members.filter(member__in=[n for n in names_part if n not in present])
            for row in leaving.order_by("pk"):
                room.participants -= 1
                departures.append(self._change(room, "left", _member(row)))
            leaving.delete()
        if room.participants <= 0:
            room.delete(using=using)
        elif departures:
            room.save(using=using, update_fields=["version", "participants"])
        return departures

    def mark_disconnected(self, connections: Sequence[RoomConnection], seconds: float) -> None:
        using = self.using
        leaves_at = DatabaseTime() + float(seconds)
        rooms_by_connection = defaultdict(set)
        for key, connection in connections:
            rooms_by_connection[connection].add(key)
        names = list(rooms_by_connection)
        rows = PresenceConnection.objects.using(using)
        with write_transaction(using):
            for start in range(0, len(names), CHUNK_SIZE):
                part = rows.filter(connection__in=names[start : start + CHUNK_SIZE]).order_by("pk")
                pks = [
                    pk
                    for pk, connection, *key in part.values_list(
                        "pk", "connection", "room__project", "room__name"
                    )
                    if tuple(key) in rooms_by_connection[connection]
                ]
                for first in range(0, len(pks), CHUNK_SIZE):
                    rows.filter(pk__in=pks[first : first + CHUNK_SIZE]).update(leaves_at=leaves_at)

    def set_state(
        self, key: RoomKey, connection: str, state: dict[str, Any]
    ) -> PresenceChange | None:
        using = self.using
        with write_transaction(using):
            room = self._lock(using, key)
            if room is None:
                return None
            connections = PresenceConnection.objects.using(using).filter(room=room)
            name = connections.filter(connection=connection).values_list("member", flat=True)
            members = PresenceMember.objects.using(using).filter(room=room, member__in=name)
            row = members.first()
            if row is None or json.loads(row.state) == state:
                return None
            row.state = json.dumps(state)
            row.save(using=using, update_fields=["state"])
            change = self._change(room, "updated", _member(row))
            room.save(using=using, update_fields=["version"])
            return change

    def list_members(self, key: RoomKey) -> MemberList:
        # one statement, so that the members are those of the version
        rows = PresenceMember.objects.using(self.using).select_related("room").order_by("pk")
        members = list(rows.filter(room__project=key[0], room__name=key[1]))
        if not members:
            return MemberList()
        return MemberList(members[0].room.version, [_member(row) for row in members])

    def get_room(self, key: RoomKey) -> RoomInfo | None:
        rooms = PresenceRoom.objects.using(self.using)
        room = rooms.filter(project=key[0], name=key[1]).first()
        return None if room is None else _info(room)

    def versions(self, keys: Iterable[RoomKey]) -> dict[RoomKey, int]:
        rooms = PresenceRoom.objects.using(self.using)
        versions: dict[RoomKey, int] = {}
        for project, names in chunks_by_project(keys, CHUNK_SIZE):
            rows = rooms.filter(project=project, name__in=names)
            for name, version in rows.values_list("name", "version"):
                versions[project, name] = version
        return versions

    def expire(self) -> list[PresenceChange]:
        using = self.using
        expired = Q(expires_at__lte=DatabaseTime())
        # leases are deleted first, so that a server whose lease has ended enters its connections
        # again; deletions without a row to delete are avoided, since they would lock SQLite
        servers = PresenceServer.objects.using(using).filter(expired)
        if servers.exists():
            servers.delete()
        server = PresenceServer.objects.using(using).filter(pk=OuterRef("server"))
        due = Q(leaves_at__lte=DatabaseTime()) | Q(~Exists(server))
        connections = PresenceConnection.objects.using(using).filter(due)
        rooms = connections.order_by("room").values_list("room", flat=True).distinct()
        departures: list[PresenceChange] = []
        for pk in list(rooms):
            with write_transaction(using):
                room = PresenceRoom.objects.using(using).select_for_update().filter(pk=pk).first()
                if room is not None:
                    departures += self._remove(using, room, due)
        claims = Claim.objects.using(using).filter(expired)
        if claims.exists():
            claims.delete()
        return departures

    def list_rooms(
        self, project: str, after: str = "", limit: int | None = None
    ) -> list[RoomListing]:
        rooms = PresenceRoom.objects.using(self.using).filter(project=project, name__gt=after)
        return [
            RoomListing(
                room.name,
                _info(room),
                [_member(row) for row in sorted(room.members.all(), key=lambda row: row.pk)],
            )
            for room in rooms.order_by("name").prefetch_related("members")[:limit]
        ]

    def acquire_key(self, name: str, seconds: float) -> bool:
        connection: Any = connections[self.using]
        table = connection.ops.quote_name(Claim._meta.db_table)
        now, params = _time_sql(connection)
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO {table} (name, expires_at) VALUES (%s, {now} + %s) "  # noqa: S608
                "ON CONFLICT (name) DO UPDATE SET expires_at = excluded.expires_at "
                f"WHERE {table}.expires_at <= {now}",
                [_digest(name), *params, float(seconds), *params],
            )
            return bool(cursor.rowcount == 1)

    def release_key(self, name: str) -> None:
        Claim.objects.using(self.using).filter(pk=_digest(name)).delete()

    def _change(
        self, room: PresenceRoom, event: Literal["joined", "left", "updated"], member: Member
    ) -> PresenceChange:
        """Increase the version of a room, and return the change with this version."""
        room.version += 1
        return PresenceChange(
            room.project, room.name, event, member, room.participants, room.version
        )


def _member(row: PresenceMember) -> Member:
    return Member(row.member, row.name, json.loads(row.state), row.claimed)


def _info(room: PresenceRoom) -> RoomInfo:
    return RoomInfo(
        room.title,
        room.created_by,
        room.created_at,
        room.version,
        room.participants,
        room.created_by_verified,
    )


def _digest(name: str) -> str:
    return hashlib.blake2s(name.encode()).hexdigest()

"""A process's local state of a room: which changes are applied, known already, or show a gap."""

from django_cocobase_realtime.events import Broadcast, Member, PresenceChange
from django_cocobase_realtime.log.cursor import Position
from django_cocobase_realtime.presence.base import MemberList
from django_cocobase_realtime.rooms.local_room import ApplyResult, LocalRoom

KEY = ("p", "r")
ADA, BOB, EVE = (Member(id, id.upper()) for id in ("ada", "bob", "eve"))


def change(event, member, version, participants=1):
    return PresenceChange(*KEY, event, member, participants, version)


def test_presence_changes_are_applied_in_order_of_version():
    room = LocalRoom(KEY)
    assert room.apply_presence(change("joined", ADA, 5)) is ApplyResult.GAP  # not read yet
    assert room.reconcile(MemberList(10, [ADA]), None) == []
    assert room.apply_presence(change("joined", EVE, 10)) is ApplyResult.DUPLICATE
    assert room.apply_presence(change("joined", BOB, 12)) is ApplyResult.GAP
    assert list(room.members) == ["ada"]
    assert room.apply_presence(change("joined", BOB, 11)) is ApplyResult.APPLIED
    assert room.apply_presence(change("joined", BOB, 11)) is ApplyResult.DUPLICATE
    typing = Member("bob", "BOB", {"typing": True})
    assert room.apply_presence(change("updated", typing, 12)) is ApplyResult.APPLIED
    assert room.members["bob"].state == {"typing": True}
    assert room.apply_presence(change("left", ADA, 13)) is ApplyResult.APPLIED
    assert list(room.members) == ["bob"]
    assert room.version == 13


def test_reconcile_returns_differences_as_changes():
    room = LocalRoom(KEY)
    room.reconcile(MemberList(1, [ADA, BOB]), None)
    renamed = Member("bob", "Robert")
    changes = room.reconcile(MemberList(9, [renamed, EVE]), room.version)
    assert [(m.event, m.member.id) for m in changes] == [
        ("left", "ada"),
        ("updated", "bob"),
        ("joined", "eve"),
    ]
    assert {(m.participants, m.version) for m in changes} == {(2, 9)}
    assert room.reconcile(MemberList(9, [renamed, EVE]), room.version) == []
    assert [m.event for m in room.reconcile(MemberList(), room.version)] == ["left", "left"]


def test_reconcile_with_outdated_list_removes_no_member():
    """A member joined, and was announced, after the list was read."""
    room = LocalRoom(KEY)
    room.reconcile(MemberList(7, [ADA]), None)
    since = room.version
    assert room.apply_presence(change("joined", BOB, 8, 2)) is ApplyResult.APPLIED
    assert room.reconcile(MemberList(7, [ADA]), since) == []
    assert (list(room.members), room.version) == (["ada", "bob"], 8)
    # the room was removed and created again without announcements
    changes = room.reconcile(MemberList(2, [EVE]), room.version)
    assert [m.event for m in changes] == ["left", "left", "joined"]


def test_broadcasts_of_durable_room_are_applied_in_order():
    def make_broadcast(seq, epoch="e"):
        return Broadcast("r", "p", seq, "", epoch=epoch, seq=seq)

    room = LocalRoom(KEY)
    assert room.apply_broadcast(make_broadcast(7)) is ApplyResult.APPLIED  # not durable
    room.position = Position("e", 3)
    assert room.apply_broadcast(make_broadcast(3)) is ApplyResult.DUPLICATE
    assert room.apply_broadcast(make_broadcast(5)) is ApplyResult.GAP
    assert room.apply_broadcast(Broadcast("r", "p", "ephemeral", "")) is ApplyResult.APPLIED
    assert room.apply_broadcast(make_broadcast(4)) is ApplyResult.APPLIED
    assert room.position == Position("e", 4)
    assert (
        room.apply_broadcast(make_broadcast(1, "f")) is ApplyResult.APPLIED
    )  # new epoch, new numbers
    assert room.position == Position("f", 1)

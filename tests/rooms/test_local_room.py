"""A process's own idea of a room: what is next, what is known, what shows a gap. No I/O."""

from django_cocobase_realtime.events import Broadcast, Member, PresenceChange
from django_cocobase_realtime.log.cursor import Position
from django_cocobase_realtime.presence.base import MemberList
from django_cocobase_realtime.rooms.local_room import ApplyResult, LocalRoom

KEY = ("p", "r")
ADA, BOB, EVE = (Member(id, id.upper()) for id in ("ada", "bob", "eve"))


def move(event, member, version, participants=1):
    return PresenceChange(*KEY, event, member, participants, version)


def test_announced_changes_apply_in_their_order_only():
    room = LocalRoom(KEY)
    assert room.apply_presence(move("joined", ADA, 5)) is ApplyResult.GAP  # nothing was read yet
    assert room.reconcile(MemberList(10, [ADA]), None) == []
    assert room.apply_presence(move("joined", EVE, 10)) is ApplyResult.DUPLICATE
    assert room.apply_presence(move("joined", BOB, 12)) is ApplyResult.GAP
    assert list(room.members) == ["ada"]
    assert room.apply_presence(move("joined", BOB, 11)) is ApplyResult.APPLIED
    assert room.apply_presence(move("joined", BOB, 11)) is ApplyResult.DUPLICATE
    typing = Member("bob", "BOB", {"typing": True})
    assert room.apply_presence(move("updated", typing, 12)) is ApplyResult.APPLIED
    assert room.members["bob"].state == {"typing": True}
    assert room.apply_presence(move("left", ADA, 13)) is ApplyResult.APPLIED
    assert list(room.members) == ["bob"]
    assert room.version == 13


def test_a_list_that_is_read_is_told_as_what_changed():
    room = LocalRoom(KEY)
    room.reconcile(MemberList(1, [ADA, BOB]), None)
    renamed = Member("bob", "Robert")
    told = room.reconcile(MemberList(9, [renamed, EVE]), room.version)
    assert [(m.event, m.member.id) for m in told] == [
        ("left", "ada"),
        ("updated", "bob"),
        ("joined", "eve"),
    ]
    assert {(m.participants, m.version) for m in told} == {(2, 9)}
    assert room.reconcile(MemberList(9, [renamed, EVE]), room.version) == []
    assert [m.event for m in room.reconcile(MemberList(), room.version)] == ["left", "left"]


def test_a_list_that_was_read_late_takes_nobody_out():
    """It was announced meanwhile who came; the list was read before he did."""
    room = LocalRoom(KEY)
    room.reconcile(MemberList(7, [ADA]), None)
    since = room.version
    assert room.apply_presence(move("joined", BOB, 8, 2)) is ApplyResult.APPLIED
    assert room.reconcile(MemberList(7, [ADA]), since) == []
    assert (list(room.members), room.version) == (["ada", "bob"], 8)
    # a room that was closed and begun anew, with nothing announced meanwhile
    told = room.reconcile(MemberList(2, [EVE]), room.version)
    assert [m.event for m in told] == ["left", "left", "joined"]


def test_broadcasts_of_a_durable_room():
    def said(seq, epoch="e"):
        return Broadcast("r", "p", seq, "", epoch=epoch, seq=seq)

    room = LocalRoom(KEY)
    assert room.apply_broadcast(said(7)) is ApplyResult.APPLIED  # it is not durable: whatever comes
    room.position = Position("e", 3)
    assert room.apply_broadcast(said(3)) is ApplyResult.DUPLICATE
    assert room.apply_broadcast(said(5)) is ApplyResult.GAP
    assert room.apply_broadcast(Broadcast("r", "p", "ephemeral", "")) is ApplyResult.APPLIED
    assert room.apply_broadcast(said(4)) is ApplyResult.APPLIED
    assert room.position == Position("e", 4)
    assert room.apply_broadcast(said(1, "f")) is ApplyResult.APPLIED  # its numbers began anew
    assert room.position == Position("f", 1)

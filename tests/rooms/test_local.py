"""A process's own idea of a room: what is next, what is known, what shows a gap. No I/O."""

from django_cocobase_realtime.events import Broadcast, Member, Presence
from django_cocobase_realtime.log.cursor import Position
from django_cocobase_realtime.presence.base import Roster
from django_cocobase_realtime.rooms.local_room import LocalRoom, News

KEY = ("p", "r")
ADA, BOB, EVE = (Member(id, id.upper()) for id in ("ada", "bob", "eve"))


def move(event, member, version, participants=1):
    return Presence(*KEY, event, member, participants, version)


def test_announced_changes_apply_in_their_order_only():
    room = LocalRoom(KEY)
    assert room.take(move("joined", ADA, 5)) is News.GAP  # nothing was read yet
    assert room.adopt(Roster(10, [ADA]), None) == []
    assert room.take(move("joined", EVE, 10)) is News.KNOWN
    assert room.take(move("joined", BOB, 12)) is News.GAP
    assert list(room.members) == ["ada"]
    assert room.take(move("joined", BOB, 11)) is News.NEXT
    assert room.take(move("joined", BOB, 11)) is News.KNOWN
    typing = Member("bob", "BOB", {"typing": True})
    assert room.take(move("updated", typing, 12)) is News.NEXT
    assert room.members["bob"].state == {"typing": True}
    assert room.take(move("left", ADA, 13)) is News.NEXT
    assert list(room.members) == ["bob"]
    assert room.version == 13


def test_a_list_that_is_read_is_told_as_what_changed():
    room = LocalRoom(KEY)
    room.adopt(Roster(1, [ADA, BOB]), None)
    renamed = Member("bob", "Robert")
    told = room.adopt(Roster(9, [renamed, EVE]), room.version)
    assert [(m.event, m.member.id) for m in told] == [
        ("left", "ada"),
        ("updated", "bob"),
        ("joined", "eve"),
    ]
    assert {(m.participants, m.version) for m in told} == {(2, 9)}
    assert room.adopt(Roster(9, [renamed, EVE]), room.version) == []
    assert [m.event for m in room.adopt(Roster(), room.version)] == ["left", "left"]


def test_a_list_that_was_read_late_takes_nobody_out():
    """It was announced meanwhile who came; the list was read before he did."""
    room = LocalRoom(KEY)
    room.adopt(Roster(7, [ADA]), None)
    since = room.version
    assert room.take(move("joined", BOB, 8, 2)) is News.NEXT
    assert room.adopt(Roster(7, [ADA]), since) == []
    assert (list(room.members), room.version) == (["ada", "bob"], 8)
    # a room that was closed and begun anew, with nothing announced meanwhile
    told = room.adopt(Roster(2, [EVE]), room.version)
    assert [m.event for m in told] == ["left", "left", "joined"]


def test_broadcasts_of_a_durable_room():
    def said(seq, epoch="e"):
        return Broadcast("r", "p", seq, "", epoch=epoch, seq=seq)

    room = LocalRoom(KEY)
    assert room.next(said(7)) is News.NEXT  # it is not durable: whatever comes
    room.position = Position("e", 3)
    assert room.next(said(3)) is News.KNOWN
    assert room.next(said(5)) is News.GAP
    assert room.next(Broadcast("r", "p", "ephemeral", "")) is News.NEXT
    assert room.next(said(4)) is News.NEXT
    assert room.position == Position("e", 4)
    assert room.next(said(1, "f")) is News.NEXT  # its numbers began anew
    assert room.position == Position("f", 1)

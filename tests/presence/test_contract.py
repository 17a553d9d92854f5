"""The contract of presence backends, tested with all of them: memory, database, Redis."""

import itertools
import threading
import time
import uuid

import pytest
from django.db import connections

from django_cocobase_realtime.events import Member, PresenceChange
from django_cocobase_realtime.options import PresenceSettings
from django_cocobase_realtime.presence.base import MemberList, PresenceEntry
from django_cocobase_realtime.presence.database import DatabasePresence
from django_cocobase_realtime.presence.memory import MemoryPresence
from django_cocobase_realtime.presence.redis import RedisPresence
from tests.support.servers import Redis

pytestmark = pytest.mark.django_db(transaction=True)
ROOM = ("p", "room one")


@pytest.fixture(scope="module")
def shared_redis():
    server = Redis()
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "database", "redis"])
def backend(request):
    if request.param == "memory":
        yield MemoryPresence(PresenceSettings())
    elif request.param == "database":
        yield DatabasePresence(PresenceSettings())
    else:
        server = request.getfixturevalue("shared_redis")
        backend = RedisPresence(PresenceSettings(url=server.url))
        yield backend
        backend._redis.flushall()
        backend.close()


def entry(connection, member, *, key=ROOM, server="s1", name=None, title="T", **options):
    return PresenceEntry(
        key=key,
        connection=connection,
        server=server,
        member=member,
        name=name or member.upper(),
        title=title,
        **options,
    )


def enter(backend, *args, **options):
    return backend.enter(entry(*args, **options))


def names(backend, key=ROOM):
    return [member.id for member in backend.list_members(key).members]


@pytest.fixture(autouse=True)
def _leased(backend):
    backend.renew_lease("s1", 60)


def test_renew_lease_returns_whether_lease_was_held(backend):
    assert backend.renew_lease("new", 60) is False
    assert backend.renew_lease("new", 60) is True


def test_enter_and_leave_increment_version_by_one(backend):
    before = time.time()
    first = enter(backend, "c1", "ada")
    assert first.change.event == "joined"
    assert first.change.member == Member("ada", "ADA", {})
    assert (first.change.project, first.change.room) == ROOM
    assert first.change.participants == first.info.participants == 1
    assert first.change.version == first.info.version
    info = first.info
    assert (info.title, info.created_by, info.created_by_verified) == ("T", "ada", True)
    assert abs(first.info.created_at - before) < 60
    second = enter(backend, "c2", "bob", title="another", state={"x": [1, {}], "y": "é"})
    assert second.info.title == "T"
    assert second.change.version == first.change.version + 1
    assert second.change.member.state == {"x": [1, {}], "y": "é"}
    listed = backend.list_members(ROOM)
    assert listed.version == second.change.version
    assert [(m.id, m.state) for m in listed.members] == [
        ("ada", {}),
        ("bob", {"x": [1, {}], "y": "é"}),
    ]
    assert backend.versions([ROOM, ("p", "nowhere")]) == {ROOM: listed.version}
    assert backend.get_room(ROOM).participants == 2
    left = backend.leave(ROOM, "c1")
    assert (left.event, left.member.id, left.participants) == ("left", "ada", 1)
    assert left.version == listed.version + 1
    assert backend.leave(ROOM, "c1") is None
    assert backend.leave(("p", "nowhere"), "c1") is None


def test_three_connections_of_one_user_are_one_member(backend):
    assert enter(backend, "c1", "ada").change is not None
    for tab in ("c2", "c3"):
        entered = enter(backend, tab, "ada")
        assert entered.change is None
        assert entered.info.participants == 1
    assert backend.leave(ROOM, "c1") is None
    assert backend.leave(ROOM, "c3") is None
    assert names(backend) == ["ada"]
    assert backend.leave(ROOM, "c2").event == "left"
    assert names(backend) == []


def test_entering_again_only_updates_member(backend):
    enter(backend, "c1", "ada", state={"a": 1})
    again = enter(backend, "c1", "ada")
    assert again.change is None
    assert backend.list_members(ROOM).members[0].state == {"a": 1}
    renamed = enter(backend, "c1", "ada", name="Countess", state={"a": 2})
    assert (renamed.change.event, renamed.change.member.name) == ("updated", "Countess")
    assert backend.leave(ROOM, "c1").event == "left"


def test_empty_room_is_removed_and_later_versions_are_higher(backend):
    assert backend.enter(entry("c1", "ada"), create=False) is None
    enter(backend, "c1", "ada")
    assert backend.enter(entry("c2", "bob"), create=False).info.participants == 2
    backend.leave(ROOM, "c2")
    last = backend.leave(ROOM, "c1")
    assert last.participants == 0
    assert backend.get_room(ROOM) is None
    assert backend.list_members(ROOM) == MemberList()
    assert backend.versions([ROOM]) == {}
    assert backend.list_rooms("p") == []
    time.sleep(0.001)
    reopened = enter(backend, "c3", "eve", title="reopened")
    assert reopened.info.title == "reopened"
    assert reopened.change.version > last.version


def test_set_state_updates_member(backend):
    enter(backend, "c1", "ada")
    enter(backend, "c2", "ada")
    change = backend.set_state(
        ROOM, "c2", {"typing": True, "n": 12345678901, "none": None, "e": []}
    )
    assert (change.event, change.member.id) == ("updated", "ada")
    assert change.member.state == {"typing": True, "n": 12345678901, "none": None, "e": []}
    assert backend.set_state(ROOM, "c1", dict(change.member.state)) is None
    assert backend.set_state(ROOM, "unknown", {}) is None
    assert backend.set_state(("p", "nowhere"), "c1", {}) is None
    backend.leave(ROOM, "c2")
    assert backend.list_members(ROOM).members[0].state["typing"] is True


def test_claimed_id_does_not_identify_member(backend):
    entered = enter(backend, "c1", "c1", claimed="7")
    assert entered.change.member == Member("c1", "C1", {}, "7")
    assert (entered.info.created_by, entered.info.created_by_verified) == ("7", False)
    assert backend.get_room(ROOM) == entered.info
    assert backend.list_members(ROOM).members[0].claimed == "7"
    assert enter(backend, "c2", "c2", claimed="7").info.participants == 2
    assert enter(backend, "c3", "c3", claimed="").change.member.claimed == ""
    # the creator stays unverified when it has left and a user with this id enters
    backend.leave(ROOM, "c1")
    enter(backend, "c4", "7")
    (listing,) = backend.list_rooms("p")
    assert (listing.info.created_by, listing.info.created_by_verified) == ("7", False)
    assert [(m.id, m.claimed) for m in listing.members][-1] == ("7", None)
    nameless = enter(backend, "c5", "c5", key=("p", "other"), claimed="").info
    assert (nameless.created_by, nameless.created_by_verified) == ("c5", False)


def test_disconnected_connection_leaves_after_grace_period(backend):
    enter(backend, "c1", "ada")
    enter(backend, "c2", "bob")
    backend.mark_disconnected([(ROOM, "c1"), (ROOM, "unknown"), (("p", "nowhere"), "c1")], 0.2)
    assert backend.expire() == []
    assert names(backend) == ["ada", "bob"]
    # the user reconnects with another connection and does not leave
    assert enter(backend, "c3", "ada").change is None
    time.sleep(0.25)
    assert backend.expire() == []
    assert names(backend) == ["ada", "bob"]
    # the same connection enters again
    backend.mark_disconnected([(ROOM, "c3")], 0.1)
    enter(backend, "c3", "ada")
    time.sleep(0.15)
    assert backend.expire() == []
    backend.mark_disconnected([(ROOM, "c3"), (ROOM, "c2")], 0.1)
    time.sleep(0.15)
    before = backend.list_members(ROOM).version
    left = backend.expire()
    assert {(m.event, m.member.id) for m in left} == {("left", "ada"), ("left", "bob")}
    assert [m.participants for m in left] == [1, 0]
    assert [m.version for m in left] == [before + 1, before + 2]
    assert backend.expire() == []


def test_connections_that_expire_during_a_call_leave_no_member_behind(backend, monkeypatch):
    for n in range(20):
        enter(backend, f"c{n}", f"user{n}")
        backend.mark_disconnected([(ROOM, f"c{n}")], n * 0.02)
    clock = itertools.count(time.time(), 0.02)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    for _ in range(30):
        backend.expire()
        time.sleep(0.02)
    assert names(backend) == []
    assert backend.get_room(ROOM) is None


def test_members_of_server_with_expired_lease_leave(backend):
    backend.renew_lease("s2", 0.2)
    enter(backend, "c1", "ada", server="s1")
    for n in range(20):
        enter(backend, f"d{n}", f"user{n}", server="s2")
    enter(backend, "c2", "user3", server="s1")  # reconnected to another server in time
    enter(backend, "e1", "eve", key=("p", "other"), server="s2")
    time.sleep(0.25)
    left = backend.expire()
    assert {m.event for m in left} == {"left"}
    assert {m.member.id for m in left if m.room == ROOM[1]} == {
        f"user{n}" for n in range(20) if n != 3
    }
    assert [m.member.id for m in left if m.room == "other"] == ["eve"]
    assert sorted(names(backend)) == ["ada", "user3"]
    assert backend.renew_lease("s2", 60) is False


def test_server_with_lost_lease_can_enter_members_again(backend):
    backend.renew_lease("s2", 0.1)
    enter(backend, "c1", "ada", server="s2")
    time.sleep(0.15)
    assert [m.event for m in backend.expire()] == ["left"]
    assert backend.renew_lease("s2", 60) is False
    assert enter(backend, "c1", "ada", server="s2").change.event == "joined"
    assert backend.expire() == []


def test_members_of_server_without_lease_expire(backend):
    enter(backend, "c1", "ada", server="unleased")
    assert [m.member.id for m in backend.expire()] == ["ada"]


def test_times_do_not_depend_on_the_clocks_of_servers(backend, monkeypatch):
    if isinstance(backend, DatabasePresence) and connections["default"].vendor == "sqlite":
        pytest.skip("SQLite has the clock of the process.")
    own_time = time.time
    monkeypatch.setattr(time, "time", lambda: own_time() - 3600)
    backend.renew_lease("s2", 60)
    enter(backend, "c1", "ada", server="s2")
    enter(backend, "c2", "bob", server="s2")
    assert backend.acquire_key("key", 60)
    monkeypatch.setattr(time, "time", lambda: own_time() + 3600)
    assert backend.expire() == []
    assert not backend.acquire_key("key", 60)
    backend.mark_disconnected([(ROOM, "c1")], 0)
    monkeypatch.setattr(time, "time", own_time)
    time.sleep(0.01)
    assert [m.member.id for m in backend.expire()] == ["ada"]


def test_rooms_of_projects_and_names_are_separate(backend):
    keys = [("p", "1x"), ("p1", "x"), ("P", "1x"), ("p", "1X"), ("p", "%"), ("p", "日本 room")]
    for number, key in enumerate(keys):
        enter(backend, f"c{number}", "ada", key=key)
    assert all(backend.get_room(key).participants == 1 for key in keys)
    assert sorted(listing.name for listing in backend.list_rooms("p")) == sorted(
        name for project, name in keys if project == "p"
    )
    assert [listing.name for listing in backend.list_rooms("P")] == ["1x"]


def test_list_rooms_is_ordered_and_complete(backend):
    enter(backend, "c1", "ada", key=("p", "b"), title="Bees")
    enter(backend, "c2", "bob", key=("p", "b"))
    enter(backend, "c3", "eve", key=("p", "a"))
    first, second = backend.list_rooms("p")
    assert (first.name, second.name) == ("a", "b")
    assert (second.info.title, second.info.created_by, second.info.participants) == (
        "Bees",
        "ada",
        2,
    )
    assert [m.name for m in second.members] == ["ADA", "BOB"]


def test_list_rooms_returns_pages(backend):
    names = ["a", "b", "ba", "c", "ü", "😀"]
    for number, name in enumerate(names):
        enter(backend, f"c{number}", "ada", key=("p", name))
        enter(backend, f"d{number}", "ada", key=("other", name))

    def page(*args):
        return [listing.name for listing in backend.list_rooms("p", *args)]

    everything = page()  # in an order that may depend on the database
    assert sorted(everything) == sorted(names)
    assert page("", 2) == everything[:2]
    assert page(everything[1], 2) == everything[2:4]
    assert page(everything[1]) == everything[2:]
    assert page(everything[-1]) == []
    assert [m.id for m in backend.list_rooms("p", everything[0], 1)[0].members] == ["ada"]


def test_idempotency_key_is_acquired_once_until_it_expires(backend):
    assert backend.acquire_key("k" * 500, 60)
    assert not backend.acquire_key("k" * 500, 60)
    assert backend.acquire_key("other", 0.1)
    time.sleep(0.15)
    backend.expire()
    assert backend.acquire_key("other", 60)
    backend.release_key("other")
    assert backend.acquire_key("other", 60)


def test_concurrent_enters_and_leaves_give_correct_members(backend):
    """Versions have no gaps, and the number of participants is right in each change."""
    changes, remaining, failures = [], set(), []

    def run(number):
        try:
            for turn in range(6):
                connection, member = uuid.uuid4().hex, f"user{(number + turn) % 5}"
                entered = enter(backend, connection, member)
                changes.append(entered.change)
                if turn < 5:
                    changes.append(backend.leave(ROOM, connection))
                else:
                    remaining.add(member)
        except Exception as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[n]) for n in range(4)]
    enter(backend, "c0", "host")
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert set(names(backend)) == remaining | {"host"}
    announced = sorted((m for m in changes if m is not None), key=lambda m: m.version)
    first = backend.list_members(ROOM).version - len(announced)
    assert [m.version for m in announced] == [first + n + 1 for n in range(len(announced))]
    present = {"host"}
    for change in announced:
        assert isinstance(change, PresenceChange)
        (present.add if change.event == "joined" else present.remove)(change.member.id)
        assert change.participants == len(present)


def test_concurrent_leases_disconnects_and_expiry_do_not_fail(backend):
    """Renew leases, mark connections disconnected and expire them in several threads."""
    failures = []

    def run(number):
        try:
            for _turn in range(20):
                server, connection = uuid.uuid4().hex, uuid.uuid4().hex
                assert backend.renew_lease(server, 60) is False
                enter(backend, connection, f"user{number}", server=server)
                backend.mark_disconnected([(ROOM, connection)], 0)
                backend.expire()
        except Exception as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[n]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    backend.expire()
    assert names(backend) == []

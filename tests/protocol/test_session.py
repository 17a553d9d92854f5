"""The conversation without sockets: each entry point's effects, and what answers do to it."""

import json
from unittest.mock import Mock

import pytest

from django_cocobase_realtime.conf import Limits
from django_cocobase_realtime.declarations.authorization import Decision, Grant
from django_cocobase_realtime.declarations.room import Room, RoomGrant
from django_cocobase_realtime.delivery.subscription import CatchUpPlan, SnapshotQuery
from django_cocobase_realtime.events import Member
from django_cocobase_realtime.filters import FieldSpec, Filter, Kind
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.log.cursor import Position, encode
from django_cocobase_realtime.log.reader import StreamRange
from django_cocobase_realtime.protocol import Session
from django_cocobase_realtime.protocol import effects as do
from django_cocobase_realtime.rooms.local_room import JoinResult, RoomMembership
from django_cocobase_realtime.rooms.publisher import PublishResult
from django_cocobase_realtime.transport.connection import Connection
from django_cocobase_realtime.transport.writer import Writer
from django_cocobase_realtime.wire.codes import CloseCode

ADA = Identity("jwt:default:1", user_id=1, name="ada")
SCHEMA = {"status": FieldSpec("status", Kind.TEXT)}
GRANT = Grant(Decision(Filter.everything()), ("title", "status"), frozenset({"status"}), SCHEMA)


class Shell:
    """Drives a session with answers given beforehand, and keeps its effects."""

    def __init__(self, limits=None, **answers):
        self.connection = Connection("c1", Mock(spec=Writer), lambda code: None)
        self.session = Session(self.connection, limits or Limits(), heartbeat=25, now=0.0)
        self.answers = {
            do.Authenticate: ADA,
            do.AdmitConnection: do.Admission({}, {}),
            do.AuthorizeCollection: GRANT,
            **answers,
        }
        self.answers.setdefault(do.OpenTopic, StreamRange("e1", 10, 5))
        self.answers.setdefault(do.AuthorizeRoom, RoomGrant(Room()))
        self.answers.setdefault(do.JoinRoom, JoinResult(1, [Member("1", "ada")], "r", None, None))
        self.answers.setdefault(do.PublishToRoom, PublishResult.SENT)

    def run(self, steps):
        effects, result = [], None
        try:
            while True:
                effect = steps.send(result)
                effects.append(effect)
                result = self.answers.get(type(effect))
                match effect:  # what the consumer does to the connection
                    case do.AttachSubscription(subscription):
                        self.session.subscriptions[subscription.name] = subscription
                    case do.DetachSubscription(subscription):
                        del self.session.subscriptions[subscription.name]
                    case do.JoinRoom(wish, grant):
                        seat = RoomMembership(self.connection, ("default", wish.room), grant)
                        self.session.rooms[wish.room] = seat
                    case do.LeaveRoom(room):
                        self.session.rooms.pop(room, None)
        except StopIteration:
            return effects

    def take(self, frame, now=0.0):
        text = frame if isinstance(frame, str | None) else json.dumps(frame)
        return self.run(self.session.receive(text, now))

    def frames(self, frame, now=0.0):
        return [e.frame for e in self.take(frame, now) if isinstance(e, do.Send)]

    def answer(self, frame, now=0.0):
        (answer,) = self.frames(frame, now)
        return answer


@pytest.fixture
def shell():
    shell = Shell()
    shell.take({"type": "auth", "token": "t"})
    return shell


def closes(effects):
    return [e.code for e in effects if isinstance(e, do.Close)]


def test_auth():
    shell = Shell()
    effects = shell.take({"type": "auth", "token": "t", "id": 1})
    assert [type(e) for e in effects] == [
        do.Authenticate,
        do.AdmitConnection,
        do.ScheduleExpiry,
        do.Send,
    ]
    assert effects[-1].frame == {
        "type": "authenticated",
        "connection": "c1",
        "user": {"id": "1", "name": "ada"},
        "project": "default",
        "expires_at": None,
        "heartbeat": 25,
        "protocol": 1,
        "id": 1,
    }


def test_a_bare_key_has_no_user():
    answer = Shell().session
    assert answer.identity is None
    shell = Shell()
    shell.answers[do.Authenticate] = Identity("key:abc", name="app")
    assert shell.answer({"type": "auth", "token": "t"})["user"] is None


def test_a_first_failure_closes_and_nothing_is_read_after():
    shell = Shell()
    shell.answers[do.Authenticate] = None
    effects = shell.take({"type": "auth", "token": "t"})
    assert effects[1].frame["code"] == "authentication_failed"
    assert closes(effects) == [CloseCode.BAD_CREDENTIAL]
    assert shell.take({"type": "ping"}) == []
    assert shell.take({"type": "auth"}) == []


def test_without_a_token_the_refusal_speaks_of_the_login():
    shell = Shell()
    shell.answers[do.Authenticate] = None
    assert "logged in" in shell.take({"type": "auth"})[1].frame["message"]


def test_before_auth_only_ping_is_answered():
    shell = Shell()
    assert shell.answer("ping") == {"type": "pong"}
    effects = shell.take({"type": "join", "room": "r", "id": 3})
    assert (effects[0].frame["code"], effects[0].frame["id"]) == ("not_authenticated", 3)
    assert closes(effects) == [CloseCode.AUTH_REQUIRED]


def test_too_many_connections():
    shell = Shell()
    shell.answers[do.AdmitConnection] = None
    assert closes(shell.take({"type": "auth"})) == [CloseCode.CONNECTION_LIMIT]


@pytest.mark.parametrize(
    ("identity", "closed"),
    [
        (ADA, []),
        (Identity("session:x", user_id=1), []),  # the same user by another credential
        (None, []),
        (Identity("jwt:default:2", user_id=2), [CloseCode.BAD_CREDENTIAL]),
        (Identity("jwt:p:1", user_id=1, project="p"), [CloseCode.BAD_CREDENTIAL]),
        (Identity("key:abc"), [CloseCode.BAD_CREDENTIAL]),
    ],
)
def test_refresh(shell, identity, closed):
    shell.answers[do.Authenticate] = identity
    effects = shell.take({"type": "auth", "token": "u"})
    assert closes(effects) == closed
    expected = identity if identity is not None and not closed else ADA
    assert shell.session.identity is expected
    assert not any(isinstance(e, do.AdmitConnection) for e in effects)


def test_timers():
    assert closes(Shell().run(Shell().session.auth_timeout())) == [CloseCode.AUTH_TIMEOUT]
    shell = Shell()
    shell.take({"type": "auth"})
    assert shell.run(shell.session.auth_timeout()) == []
    assert closes(shell.run(shell.session.expired())) == [CloseCode.TOKEN_EXPIRED]
    assert shell.run(shell.session.idle()) == []  # closed once is closed


def test_subscribe(shell):
    effects = shell.take(
        {"type": "subscribe", "collection": "posts", "filters": {"status": "a"}, "id": "x"}
    )
    assert [type(e) for e in effects] == [
        do.AuthorizeCollection,
        do.OpenTopic,
        do.Send,
        do.AttachSubscription,
    ]
    assert effects[3].subscription.query.fields == ("title", "status")
    assert effects[3].plan is None
    frame = effects[2].frame
    assert (frame["type"], frame["id"], frame["durable"]) == ("subscribed", "x", True)
    assert frame["cursor"] == encode("posts", "e1", 10)
    assert "resumed" not in frame


def subscribed(shell, **options):
    """The reply, and what is attached."""
    effects = shell.take({"type": "subscribe", "collection": "posts", **options})
    return effects[-2].frame, effects[-1]


def test_resume(shell):
    scope = subscribed(shell)[0]["scope"]
    since = encode("posts", "e1", 7)
    reply, attach = subscribed(shell, since=since, scope=scope)
    assert (reply["resumed"], reply["cursor"]) == (True, since)  # its own: a second drop is safe
    assert attach.plan == CatchUpPlan(Position("e1", 7))
    reply, attach = subscribed(shell, since=since, snapshot=True)
    assert reply["resumed"] is True
    assert subscribed(shell, since=encode("posts", "e1", 5))[0]["resumed"] is True  # the floor


@pytest.mark.parametrize(
    ("since", "reason"),
    [
        (encode("posts", "e1", 4), "retention"),
        (encode("posts", "e1", 11), "ahead_of_head"),
        (encode("posts", "e0", 7), "epoch_changed"),
        (encode("other", "e1", 7), "invalid_cursor"),
        ("garbage", "invalid_cursor"),
        ("", "invalid_cursor"),
        (encode("posts", "e1", 7) + "\n", "invalid_cursor"),
        (encode("posts", "e1", 7)[:-1] + "٧", "invalid_cursor"),
    ],
)
def test_never_a_partial_answer(shell, since, reason):
    reply, attach = subscribed(shell, since=since, snapshot=True)
    assert reply["resumed"] is False
    assert reply["resync"] == {"reason": reason}
    assert reply["cursor"] == encode("posts", "e1", 10)
    assert attach.plan == CatchUpPlan(snapshot=SnapshotQuery(10_000))


def test_another_scope_is_a_resync(shell):
    scope = subscribed(shell)[0]["scope"]
    since = encode("posts", "e1", 7)
    for other in ({"filters": {"status": "a"}}, {"fields": ["title"]}, {"events": ["deleted"]}):
        reply, _ = subscribed(shell, since=since, scope=scope, **other)
        assert reply["resync"] == {"reason": "scope_changed"}


def test_too_much_to_replay():
    shell = Shell(Limits(replay_events=1, replay_pages=2))
    shell.take({"type": "auth"})
    assert subscribed(shell, since=encode("posts", "e1", 7))[0]["resync"] == {
        "reason": "replay_limit"
    }
    assert subscribed(shell, since=encode("posts", "e1", 8))[0]["resumed"] is True


def test_without_a_log(shell):
    shell.answers[do.OpenTopic] = None
    reply, _ = subscribed(shell)
    assert (reply["durable"], "cursor" in reply) == (False, False)
    assert subscribed(shell, since=encode("posts", "e1", 7))[0]["resumed"] is False


def test_snapshots_are_bounded(shell):
    assert subscribed(shell, snapshot=True)[1].plan.snapshot == SnapshotQuery(10_000)
    wanted = subscribed(shell, snapshot={"limit": 5, "order": "-status"})[1].plan.snapshot
    assert wanted == SnapshotQuery(5, "-status")
    for snapshot, code in (
        ({"limit": 10_001}, "limit_exceeded"),
        ({"limit": 0}, "bad_request"),
        ({"order": "password"}, "bad_request"),
        ({"order": "?"}, "bad_request"),
        ({"order": "--status"}, "bad_request"),
        (5, "bad_request"),
    ):
        frame = {"type": "subscribe", "collection": "posts", "snapshot": snapshot}
        assert shell.answer(frame)["code"] == code


def test_a_refusal_is_one_error_and_attaches_nothing(shell):
    shell.answers[do.AuthorizeCollection] = None
    effects = shell.take({"type": "subscribe", "collection": "nope"})
    assert [type(e) for e in effects] == [do.AuthorizeCollection, do.Send]
    assert effects[1].frame["code"] == "unknown_collection"


def test_fields_must_be_readable(shell):
    ask = {"type": "subscribe", "collection": "posts", "fields": ["title"]}
    assert shell.take(ask)[-1].subscription.query.fields == ("title",)
    answer = shell.answer({**ask, "fields": ["title", "password"]})
    assert answer["code"] == "bad_request"
    assert "password" in answer["message"]


def test_rooms(shell):
    joined = shell.answer({"type": "join", "room": "r"})
    assert joined["members"] == [{"id": "1", "name": "ada", "state": {}}]
    say = {"type": "broadcast", "room": "r", "message": [1]}
    assert shell.frames(say) == []  # no id, no reply
    assert shell.answer({**say, "id": 1}) == {"type": "sent", "room": "r", "id": 1}
    shell.answers[do.PublishToRoom] = PublishResult.FAILED
    assert shell.answer(say)["code"] == "internal_error"
    assert shell.answer({"type": "leave", "room": "r"}) == {"type": "left", "room": "r"}
    for frame in ({"type": "leave", "room": "r"}, say):
        assert shell.answer(frame)["code"] == "not_joined"


def test_a_room_that_may_not_be_joined_any_more_is_left(shell):
    shell.take({"type": "join", "room": "r"})
    shell.answers[do.AuthorizeRoom] = None
    effects = shell.take({"type": "join", "room": "r"})
    assert [type(e) for e in effects] == [do.AuthorizeRoom, do.LeaveRoom, do.Send]
    assert effects[-1].frame["code"] == "forbidden"
    assert shell.session.rooms == {}


def test_presence_that_does_not_answer(shell):
    shell.answers[do.JoinRoom] = False
    answer = shell.answer({"type": "join", "room": "r", "id": 1})
    assert (answer["code"], answer["id"]) == ("internal_error", 1)
    assert answer["retry_after_ms"] > 0


def test_limits():
    limits = Limits(subscriptions=1, rooms=1, name_bytes=4, message_bytes=100)
    shell = Shell(limits)
    shell.take({"type": "auth"})
    shell.answer({"type": "subscribe", "collection": "a"})
    assert shell.answer({"type": "subscribe", "collection": "a"})["type"] == "subscribed"
    for frame in (
        {"type": "subscribe", "collection": "b"},
        {"type": "subscribe", "collection": "äöü"},
        {"type": "join", "room": "abcde"},
    ):
        assert shell.answer(frame)["code"] == "limit_exceeded"
    shell.answer({"type": "join", "room": "a"})
    assert shell.answer({"type": "join", "room": "b"})["code"] == "limit_exceeded"
    assert shell.answer("x" * 101)["code"] == "too_large"
    assert shell.answer({"type": "ping", "x": "é" * 60})["code"] == "too_large"


def test_what_a_connection_asks_for_is_bounded_in_all(shell):
    """A hundred subscriptions, each as long as a frame may be, would hold megabytes."""
    ask = {"type": "subscribe", "collection": "posts", "filters": {"status": "x" * 60_000}}
    answers = [shell.answer({**ask, "subscription": f"{n}"}, n)["type"] for n in range(20)]
    assert answers == ["subscribed"] * 17 + ["error"] * 3
    assert shell.answer({**ask, "subscription": "3"}, 30)["type"] == "subscribed"  # replaced
    refused = shell.answer({**ask, "subscription": "more"}, 30)
    assert refused["code"] == "limit_exceeded"
    assert shell.answer({**ask, "subscription": "more", "filters": {}}, 30)["type"] == "subscribed"


def test_before_auth_frames_are_small():
    assert Shell(Limits(auth_bytes=50)).answer("x" * 51)["code"] == "too_large"


def test_binary_frames_are_bad_requests(shell):
    assert shell.answer(None)["code"] == "bad_request"


def test_bad_requests_within_a_minute(shell):
    for _ in range(5):
        assert closes(shell.take("{")) == []
    assert closes(shell.take("{", now=59)) == [CloseCode.TOO_MANY_BAD_REQUESTS]
    shell = Shell()
    for now in range(0, 600, 20):
        assert closes(shell.take("{", now=now)) == []


def test_rates_and_patience():
    shell = Shell(Limits(messages_rate=(1, 3)))
    shell.take({"type": "auth"})  # one token
    leave = {"type": "leave", "room": "r"}
    assert [shell.answer(leave)["code"] for _ in range(3)] == [
        "not_joined",
        "not_joined",
        "rate_limited",
    ]
    assert 0 < shell.answer(leave)["retry_after_ms"] <= 1001
    assert shell.answer({"type": "ping"}) == {"type": "pong"}  # counted by itself
    assert shell.answer(leave, now=1.1)["code"] == "not_joined"
    effects = [effect for _ in range(10) for effect in shell.take(leave, now=1.1)]
    assert closes(effects) == [CloseCode.RATE_LIMITED]


def test_ack_is_not_answered_and_cheap(shell):
    for n in range(100):
        assert shell.take({"type": "ack", "cursor": str(n)}) == []
    assert shell.answer({"type": "ack"})["code"] == "bad_request"


def test_a_reconnect_with_a_hundred_subscriptions_passes(shell):
    for number in range(100):
        frame = {"type": "subscribe", "collection": "posts", "subscription": str(number)}
        assert shell.answer(frame)["type"] == "subscribed"

"""The session without I/O: the effects it yields, and what it does with their results."""

import json
from unittest.mock import Mock

import pytest

from django_cocobase_realtime.declarations.authorization import Decision, Grant
from django_cocobase_realtime.declarations.room import Room, RoomGrant
from django_cocobase_realtime.delivery.subscription import CatchUpPlan, SnapshotQuery
from django_cocobase_realtime.events import Member
from django_cocobase_realtime.filters import FieldSpec, Filter, Kind
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.log.cursor import Position, encode
from django_cocobase_realtime.log.reader import StreamRange
from django_cocobase_realtime.options import Limits
from django_cocobase_realtime.protocol import Session, effects
from django_cocobase_realtime.rooms.local_room import JoinResult, RoomMembership
from django_cocobase_realtime.rooms.publisher import PublishResult
from django_cocobase_realtime.transport.connection import Connection
from django_cocobase_realtime.transport.writer import Writer
from django_cocobase_realtime.wire.codes import CloseCode

ADA = Identity("jwt:default:1", user_id=1, name="ada")
SCHEMA = {"status": FieldSpec("status", Kind.TEXT)}
GRANT = Grant(
    Decision(Filter.everything()),
    ("title", "status"),
    frozenset({"status"}),
    SCHEMA,
    ("id",),
    "posts",
)


class SessionRunner:
    """Run a session with prepared results of effects, and collect the effects."""

    def __init__(self, limits=None, **results):
        self.connection = Connection("c1", Mock(spec=Writer), lambda code: None)
        self.session = Session(self.connection, limits or Limits(), heartbeat=25, now=0.0)
        self.results = {
            effects.Authenticate: ADA,
            effects.AdmitConnection: effects.Admission({}, {}),
            effects.AuthorizeCollection: GRANT,
            **results,
        }
        self.results.setdefault(effects.OpenTopic, StreamRange("e1", 10, 5))
        self.results.setdefault(effects.ReserveFilterCost, True)
        self.results.setdefault(effects.AuthorizeRoom, RoomGrant(Room()))
        self.results.setdefault(
            effects.JoinRoom, JoinResult(1, [Member("1", "ada")], "r", None, None)
        )
        self.results.setdefault(effects.PublishToRoom, PublishResult.SENT)

    def run(self, steps):
        yielded, result = [], None
        try:
            while True:
                effect = steps.send(result)
                yielded.append(effect)
                result = self.results.get(type(effect))
                match effect:  # what the consumer does to the connection
                    case effects.AttachSubscription(subscription):
                        self.session.subscriptions[subscription.name] = subscription
                    case effects.DetachSubscription(subscription):
                        del self.session.subscriptions[subscription.name]
                    case effects.JoinRoom(request, grant):
                        membership = RoomMembership(
                            self.connection, ("default", request.room), grant
                        )
                        self.session.rooms[request.room] = membership
                    case effects.LeaveRoom(room):
                        self.session.rooms.pop(room, None)
        except StopIteration:
            return yielded

    def receive(self, frame, now=0.0):
        text = frame if isinstance(frame, str | None) else json.dumps(frame)
        return self.run(self.session.receive(text, now))

    def frames(self, frame, now=0.0):
        return [e.frame for e in self.receive(frame, now) if isinstance(e, effects.Send)]

    def reply(self, frame, now=0.0):
        (reply,) = self.frames(frame, now)
        return reply


@pytest.fixture
def runner():
    runner = SessionRunner()
    runner.receive({"type": "auth", "token": "t"})
    return runner


def close_codes(yielded):
    return [e.code for e in yielded if isinstance(e, effects.Close)]


def test_auth_is_answered_with_the_identity():
    runner = SessionRunner()
    yielded = runner.receive({"type": "auth", "token": "t", "id": 1})
    assert [type(e) for e in yielded] == [
        effects.Authenticate,
        effects.AdmitConnection,
        effects.ScheduleExpiry,
        effects.Send,
    ]
    assert yielded[-1].frame == {
        "type": "authenticated",
        "connection": "c1",
        "user": {"id": "1", "name": "ada"},
        "project": "default",
        "expires_at": None,
        "heartbeat": 25,
        "protocol": 1,
        "id": 1,
    }


def test_auth_with_key_without_user():
    reply = SessionRunner().session
    assert reply.identity is None
    runner = SessionRunner()
    runner.results[effects.Authenticate] = Identity("key:abc", name="app")
    assert runner.reply({"type": "auth", "token": "t"})["user"] is None


def test_failed_first_auth_closes_and_ignores_further_frames():
    runner = SessionRunner()
    runner.results[effects.Authenticate] = None
    yielded = runner.receive({"type": "auth", "token": "t"})
    assert yielded[1].frame["code"] == "authentication_failed"
    assert close_codes(yielded) == [CloseCode.BAD_CREDENTIAL]
    assert runner.receive({"type": "ping"}) == []
    assert runner.receive({"type": "auth"}) == []


def test_failed_auth_without_token_mentions_login():
    runner = SessionRunner()
    runner.results[effects.Authenticate] = None
    assert "logged in" in runner.receive({"type": "auth"})[1].frame["message"]


def test_request_before_auth_closes_except_ping():
    runner = SessionRunner()
    assert runner.reply("ping") == {"type": "pong"}
    yielded = runner.receive({"type": "join", "room": "r", "id": 3})
    assert (yielded[0].frame["code"], yielded[0].frame["id"]) == ("not_authenticated", 3)
    assert close_codes(yielded) == [CloseCode.AUTH_REQUIRED]


def test_auth_closes_when_connection_is_not_admitted():
    runner = SessionRunner()
    runner.results[effects.AdmitConnection] = effects.TooManyConnections(5000)
    close = effects.Close(CloseCode.CONNECTION_LIMIT, 5000)
    assert runner.receive({"type": "auth"})[-1] == close


@pytest.mark.parametrize(
    ("identity", "closed"),
    [
        (ADA, []),
        (Identity("session:x", user_id=1), []),  # the same user with another credential
        (None, []),
        (Identity("jwt:default:2", user_id=2), [CloseCode.BAD_CREDENTIAL]),
        (Identity("jwt:p:1", user_id=1, project="p"), [CloseCode.BAD_CREDENTIAL]),
        (Identity("key:abc"), [CloseCode.BAD_CREDENTIAL]),
    ],
)
def test_second_auth_keeps_or_closes_by_identity(runner, identity, closed):
    runner.results[effects.Authenticate] = identity
    yielded = runner.receive({"type": "auth", "token": "u"})
    assert close_codes(yielded) == closed
    expected = identity if identity is not None and not closed else ADA
    assert runner.session.identity is expected
    assert not any(isinstance(e, effects.AdmitConnection) for e in yielded)


def test_timers_close_with_their_codes():
    runner = SessionRunner()
    assert close_codes(runner.run(runner.session.auth_timeout())) == [CloseCode.AUTH_TIMEOUT]
    runner = SessionRunner()
    runner.receive({"type": "auth"})
    assert runner.run(runner.session.auth_timeout()) == []
    assert close_codes(runner.run(runner.session.expired())) == [CloseCode.TOKEN_EXPIRED]
    assert runner.run(runner.session.idle()) == []  # already closed


def test_subscribe_authorizes_and_attaches(runner):
    yielded = runner.receive(
        {"type": "subscribe", "collection": "posts", "filters": {"status": "a"}, "id": "x"}
    )
    assert [type(e) for e in yielded] == [
        effects.AuthorizeCollection,
        effects.ReserveFilterCost,
        effects.OpenTopic,
        effects.Send,
        effects.AttachSubscription,
    ]
    assert yielded[4].subscription.query.fields == ("title", "status")
    assert yielded[4].plan is None
    frame = yielded[3].frame
    assert (frame["type"], frame["id"], frame["durable"]) == ("subscribed", "x", True)
    assert frame["cursor"] == encode("posts", "e1", 10)
    assert "resumed" not in frame


def subscribe(runner, **options):
    """Subscribe to posts. Return the reply and the effect that attaches the subscription."""
    yielded = runner.receive({"type": "subscribe", "collection": "posts", **options})
    return yielded[-2].frame, yielded[-1]


def test_subscribe_with_cursor_resumes(runner):
    scope = subscribe(runner)[0]["scope"]
    since = encode("posts", "e1", 7)
    reply, attach = subscribe(runner, since=since, scope=scope)
    assert (reply["resumed"], reply["cursor"]) == (True, since)  # not the head
    assert attach.plan == CatchUpPlan(Position("e1", 7))
    reply, attach = subscribe(runner, since=since, snapshot=True)
    assert reply["resumed"] is True
    assert (
        subscribe(runner, since=encode("posts", "e1", 5))[0]["resumed"] is True
    )  # the oldest position


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
def test_cursor_that_cannot_be_resumed_causes_resync(runner, since, reason):
    reply, attach = subscribe(runner, since=since, snapshot=True)
    assert reply["resumed"] is False
    assert reply["resync"] == {"reason": reason}
    assert reply["cursor"] == encode("posts", "e1", 10)
    assert attach.plan == CatchUpPlan(snapshot=SnapshotQuery(10_000))


def test_changed_scope_causes_resync(runner):
    scope = subscribe(runner)[0]["scope"]
    since = encode("posts", "e1", 7)
    for other in ({"filters": {"status": "a"}}, {"fields": ["title"]}, {"events": ["deleted"]}):
        reply, _ = subscribe(runner, since=since, scope=scope, **other)
        assert reply["resync"] == {"reason": "scope_changed"}


def test_replay_beyond_limit_causes_resync():
    runner = SessionRunner(Limits(replay_events=1, replay_pages=2))
    runner.receive({"type": "auth"})
    assert subscribe(runner, since=encode("posts", "e1", 7))[0]["resync"] == {
        "reason": "replay_limit"
    }
    assert subscribe(runner, since=encode("posts", "e1", 8))[0]["resumed"] is True


def test_subscribe_without_log_has_no_cursor(runner):
    runner.results[effects.OpenTopic] = None
    reply, _ = subscribe(runner)
    assert (reply["durable"], "cursor" in reply) == (False, False)
    assert subscribe(runner, since=encode("posts", "e1", 7))[0]["resumed"] is False


def test_snapshot_options_are_validated_and_limited(runner):
    assert subscribe(runner, snapshot=True)[1].plan.snapshot == SnapshotQuery(10_000)
    query = subscribe(runner, snapshot={"limit": 5, "order": "-status"})[1].plan.snapshot
    assert query == SnapshotQuery(5, "-status")
    for snapshot, code in (
        ({"limit": 10_001}, "limit_exceeded"),
        ({"limit": 0}, "bad_request"),
        ({"order": "password"}, "bad_request"),
        ({"order": "?"}, "bad_request"),
        ({"order": "--status"}, "bad_request"),
        (5, "bad_request"),
    ):
        frame = {"type": "subscribe", "collection": "posts", "snapshot": snapshot}
        assert runner.reply(frame)["code"] == code


def test_refused_subscribe_sends_one_error(runner):
    runner.results[effects.AuthorizeCollection] = None
    yielded = runner.receive({"type": "subscribe", "collection": "nope"})
    assert [type(e) for e in yielded] == [effects.AuthorizeCollection, effects.Send]
    assert yielded[1].frame["code"] == "unknown_collection"


def test_subscribe_to_unreadable_field_is_bad_request(runner):
    request = {"type": "subscribe", "collection": "posts", "fields": ["title"]}
    assert runner.receive(request)[-1].subscription.query.fields == ("title",)
    reply = runner.reply({**request, "fields": ["title", "password"]})
    assert reply["code"] == "bad_request"
    assert "password" in reply["message"]


def test_join_broadcast_and_leave(runner):
    joined = runner.reply({"type": "join", "room": "r"})
    assert joined["members"] == [{"id": "1", "name": "ada", "state": {}}]
    broadcast = {"type": "broadcast", "room": "r", "message": [1]}
    assert runner.frames(broadcast) == []  # no id, no reply
    assert runner.reply({**broadcast, "id": 1}) == {"type": "sent", "room": "r", "id": 1}
    runner.results[effects.PublishToRoom] = PublishResult.FAILED
    assert runner.reply(broadcast)["code"] == "internal_error"
    assert runner.reply({"type": "leave", "room": "r"}) == {"type": "left", "room": "r"}
    for frame in ({"type": "leave", "room": "r"}, broadcast):
        assert runner.reply(frame)["code"] == "not_joined"


def test_room_is_left_when_join_is_forbidden_later(runner):
    runner.receive({"type": "join", "room": "r"})
    runner.results[effects.AuthorizeRoom] = None
    yielded = runner.receive({"type": "join", "room": "r"})
    assert [type(e) for e in yielded] == [effects.AuthorizeRoom, effects.LeaveRoom, effects.Send]
    assert yielded[-1].frame["code"] == "forbidden"
    assert runner.session.rooms == {}


def test_join_fails_when_presence_is_unavailable(runner):
    runner.results[effects.JoinRoom] = False
    reply = runner.reply({"type": "join", "room": "r", "id": 1})
    assert (reply["code"], reply["id"]) == ("internal_error", 1)
    assert reply["retry_after_ms"] > 0


def test_limits_are_enforced():
    limits = Limits(subscriptions=1, rooms=1, name_bytes=4, message_bytes=100)
    runner = SessionRunner(limits)
    runner.receive({"type": "auth"})
    runner.reply({"type": "subscribe", "collection": "a"})
    assert runner.reply({"type": "subscribe", "collection": "a"})["type"] == "subscribed"
    for frame in (
        {"type": "subscribe", "collection": "b"},
        {"type": "subscribe", "collection": "äöü"},
        {"type": "join", "room": "abcde"},
    ):
        assert runner.reply(frame)["code"] == "limit_exceeded"
    runner.reply({"type": "join", "room": "a"})
    assert runner.reply({"type": "join", "room": "b"})["code"] == "limit_exceeded"
    assert runner.reply("x" * 101)["code"] == "too_large"
    assert runner.reply({"type": "ping", "x": "é" * 60})["code"] == "too_large"


def test_total_size_of_subscriptions_is_limited(runner):
    """A hundred subscriptions with frames of the maximum size would use megabytes."""
    request = {"type": "subscribe", "collection": "posts", "filters": {"status": "x" * 60_000}}
    results = [runner.reply({**request, "subscription": f"{n}"}, n)["type"] for n in range(20)]
    assert results == ["subscribed"] * 17 + ["error"] * 3
    assert runner.reply({**request, "subscription": "3"}, 30)["type"] == "subscribed"  # replaced
    refused = runner.reply({**request, "subscription": "more"}, 30)
    assert refused["code"] == "limit_exceeded"
    assert (
        runner.reply({**request, "subscription": "more", "filters": {}}, 30)["type"] == "subscribed"
    )


def test_frame_before_auth_has_smaller_size_limit():
    assert SessionRunner(Limits(auth_bytes=50)).reply("x" * 51)["code"] == "too_large"


def test_binary_frame_is_bad_request(runner):
    assert runner.reply(None)["code"] == "bad_request"


def test_too_many_bad_requests_within_a_minute_close(runner):
    for _ in range(5):
        assert close_codes(runner.receive("{")) == []
    assert close_codes(runner.receive("{", now=59)) == [CloseCode.TOO_MANY_BAD_REQUESTS]
    runner = SessionRunner()
    for now in range(0, 600, 20):
        assert close_codes(runner.receive("{", now=now)) == []


def test_rate_limit_is_reported_then_closes():
    runner = SessionRunner(Limits(messages_rate=(1, 3)))
    runner.receive({"type": "auth"})  # uses one token
    leave = {"type": "leave", "room": "r"}
    assert [runner.reply(leave)["code"] for _ in range(3)] == [
        "not_joined",
        "not_joined",
        "rate_limited",
    ]
    assert 0 < runner.reply(leave)["retry_after_ms"] <= 1001
    assert runner.reply({"type": "ping"}) == {"type": "pong"}  # pings have their own limit
    assert runner.reply(leave, now=1.1)["code"] == "not_joined"
    yielded = [effect for _ in range(10) for effect in runner.receive(leave, now=1.1)]
    assert close_codes(yielded) == [CloseCode.RATE_LIMITED]


def test_ack_has_no_reply_and_no_rate_limit(runner):
    for n in range(100):
        assert runner.receive({"type": "ack", "cursor": str(n)}) == []
    assert runner.reply({"type": "ack"})["code"] == "bad_request"


def test_hundred_subscriptions_after_reconnect_are_accepted(runner):
    for number in range(100):
        frame = {"type": "subscribe", "collection": "posts", "subscription": str(number)}
        assert runner.reply(frame)["type"] == "subscribed"

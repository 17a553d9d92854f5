"""The session without I/O: the effects it yields, and what it does with their results."""

from datetime import UTC, datetime, timedelta

import pytest

from django_cocobase_realtime.delivery.subscription import CatchUpPlan, SnapshotQuery
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.log.cursor import Position, encode
from django_cocobase_realtime.options import Limits
from django_cocobase_realtime.protocol import effects
from django_cocobase_realtime.rooms.publisher import PublishResult
from django_cocobase_realtime.wire.codes import CloseCode
from tests.protocol.runner import ADA, SessionRunner, close_codes, subscribe
from tests.support.as_of import by


def test_auth_is_answered_with_the_identity():
    runner = SessionRunner()
    yielded = runner.receive({"type": "auth", "token": "t", "id": 1})
    assert [type(e) for e in yielded] == [
        effects.Authenticate,
        effects.AdmitConnection,
        effects.ScheduleExpiry,
        effects.Send,
    ]
    frame = yielded[-1].frame
    assert datetime.now(UTC) - datetime.fromisoformat(frame.pop("now")) < timedelta(minutes=1)
    assert frame.pop("limits") == {
        "message_bytes": 65536,
        "name_bytes": 128,
        "state_bytes": 1024,
        "subscriptions": 100,
        "rooms": 50,
        "messages_rate": (20, 40),
        "subscribe_rate": (5, 100),
        "broadcast_rate": (10, 20),
    }
    assert frame == {
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
    assert query == SnapshotQuery(5, by("-status"))
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

"""Requests that a session refuses because of a limit, and what the client learns about them."""

import json
from unittest.mock import Mock

import pytest

from django_cocobase_realtime.options import Limits
from django_cocobase_realtime.wire.codes import CloseCode
from tests.protocol.runner import SessionRunner, close_codes


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


@pytest.mark.parametrize(
    ("rate", "request_frame"),
    [
        ("messages_rate", {"type": "state", "room": "r", "state": {"n": 1}}),
        ("messages_rate", {"type": "join", "room": "r"}),
        ("subscribe_rate", {"type": "subscribe", "collection": "posts"}),
        ("broadcast_rate", {"type": "broadcast", "room": "r", "message": 1}),
    ],
)
def test_request_over_a_rate_is_accepted_after_the_delay(rate, request_frame):
    runner = SessionRunner(Limits(**{rate: (2, 3)}))
    runner.receive({"type": "auth"})
    runner.receive({"type": "join", "room": "r"})
    runner.session.rooms["r"].entry = Mock()  # the connection is a member
    request_frame = {**request_frame, "id": 7}
    now = 10.0
    for _ in range(3):
        assert runner.reply(request_frame, now)["type"] != "error"
    refused = runner.reply(request_frame, now)
    assert (refused["code"], refused["id"]) == ("rate_limited", 7)
    assert 0 < refused["retry_after_ms"] <= 501
    now += refused["retry_after_ms"] / 1000
    assert runner.reply(request_frame, now)["type"] != "error"


def test_a_client_learns_the_limits_that_are_enforced():
    """Also when the settings are lists, as in a JSON file."""
    runner = SessionRunner(Limits(rooms=3, broadcast_rate=[1, 2]))
    limits = runner.reply({"type": "auth"})["limits"]
    assert (limits["rooms"], list(limits["broadcast_rate"])) == (3, [1, 2])


@pytest.mark.parametrize(
    "value", ['"\\ud83d"', '"\\u0000"', "NaN", "1152921504606846976", "[" * 20 + "]" * 20]
)
def test_refused_value_is_answered_with_the_id(runner, value):
    error = runner.reply('{"type":"broadcast","room":"r","message":' + value + ',"id":"a"}')
    assert (error["code"], error["id"]) == ("bad_request", "a")


def test_oversized_frame_is_answered_with_the_id():
    runner = SessionRunner(Limits(message_bytes=1000, messages_rate=(1, 4)))
    runner.receive({"type": "auth"})
    frame = {"type": "broadcast", "room": "r", "message": "x" * 1000, "id": 5}
    for text in (json.dumps(frame), json.dumps({"id": 5, **frame})):
        error = runner.reply(text)
        assert (error["code"], error["id"]) == ("too_large", 5)
    runner.receive(json.dumps(frame))
    error = runner.reply(json.dumps(frame))
    assert (error["code"], error["id"]) == ("rate_limited", 5)

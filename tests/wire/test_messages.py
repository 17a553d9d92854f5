"""Decoding of commands, and the frames that answer them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.wire import commands
from django_cocobase_realtime.wire.codes import CloseCode, ErrorCode, Retry
from django_cocobase_realtime.wire.commands import InvalidCommand, decode
from django_cocobase_realtime.wire.frames import error, reply
from django_cocobase_realtime.wire.json import InvalidJson, parse_object


def decode_error(text):
    with pytest.raises(InvalidCommand) as raised:
        decode(text)
    return raised.value


def test_documented_frames_are_decoded():
    assert decode('{"type": "auth", "token": "YOUR_API_KEY_OR_JWT"}').token == "YOUR_API_KEY_OR_JWT"
    frame = '{"type":"subscribe","collection":"posts","filters":{"status":"published"}}'
    assert decode(frame).filters == {"status": "published"}
    assert decode('{"type":"join","room":"chat-123"}').room == "chat-123"
    broadcast = '{"type":"broadcast","room":"r","message":{"user":"John","text":"Hello everyone!"}}'
    assert decode(broadcast).message == {"user": "John", "text": "Hello everyone!"}
    assert decode("ping") == commands.Ping()
    assert decode('{"type":"ping","id":"a"}').id == "a"


def test_unknown_keys_are_ignored():
    assert decode('{"type":"ping","since":1,"x":[{}]}') == commands.Ping()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("{'a': 1}", "not JSON"),
        ("null", "JSON object"),
        ("[]", "JSON object"),
        ('"ping"', "JSON object"),
        ('{"type":"ping","type":"ping"}', "same key twice"),
        ('{"type":"ping","x":{"a":1,"a":2}}', "same key twice"),
        ('{"x":NaN}', "NaN"),
        ('{"x":-Infinity}', "Infinity"),
        ('{"x":1e999}', "too large"),
        ('{"x":9007199254740993}', "2^53"),
        ('{"x":' + "9" * 50_000 + "}", "2^53"),
        ('{"x":"\\u0000"}', "NUL"),
        ('{"\\u0000":1}', "NUL"),
        ('{"x":"\\ud800"}', "surrogates"),
        ('{"x":' + "[" * 16 + "]" * 16 + "}", "levels deep"),
        ('{"x":' + "[" * 30_000, "levels deep"),
        ('{"x":' * 30_000, "levels deep"),
        ('{"x":[' + ",".join('{"a":1}' for _ in range(512)) + "]}", "512 keys"),
        ('{"type":1}', "type must be a string"),
        ("{}", "type must be a string"),
        ('{"type":"join"}', "room"),
        ('{"type":"join","room":""}', "room"),
        ('{"type":"join","room":5}', "room"),
        ('{"type":"auth","token":{}}', "token"),
        ('{"type":"broadcast","room":"r"}', "message"),
        ('{"type":"broadcast","room":"r","message":1,"echo":1}', "echo"),
        ('{"type":"subscribe","collection":"p","events":["x"]}', "created, updated, deleted"),
        ('{"type":"subscribe","collection":"p","filters":[]}', "filters"),
        ('{"type":"subscribe","collection":"p","fields":[1]}', "fields"),
        ('{"type":"ping","id":1.5}', "id"),
        ('{"type":"ping","id":true}', "id"),
        ('{"type":"ping","id":{}}', "id"),
        ('{"type":"ping","id":"' + "x" * 65 + '"}', "id"),
    ],
)
def test_bad_request_names_the_mistake(text, words):
    error = decode_error(text)
    assert error.code is ErrorCode.BAD_REQUEST
    assert words in str(error)
    assert str(error).endswith(".")
    assert len(str(error)) < 200


def test_values_at_the_limits_are_accepted():
    parse_object('{"x":' + "[" * 15 + "]" * 15 + "}")
    parse_object('{"x":[' + ",".join('{"a":1}' for _ in range(511)) + "]}")
    parse_object('{"x":9007199254740992,"y":-9007199254740992}')
    assert decode('{"type":"ping","id":"' + "x" * 64 + '"}').id == "x" * 64


def test_unknown_type_is_rejected_with_id_and_known_types():
    error = decode_error('{"type":"nope","id":7}')
    assert (error.code, error.id) == (ErrorCode.UNKNOWN_TYPE, 7)
    assert "subscribe" in str(error)
    assert decode_error('{"type":"join","id":"a"}').id == "a"


@given(st.text())
def test_any_text_is_decoded_or_rejected(text):
    try:
        decode(text)
    except InvalidCommand as error:
        assert error.code in ErrorCode


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(
    st.sampled_from(sorted(commands.COMMAND_TYPES)), st.dictionaries(st.text(), anything), anything
)
def test_any_frame_is_decoded_or_rejected(type, extra, value):
    names = ("id", "token", "collection", "filters", "room", "message", "events", "fields")
    for name in names:
        try:
            decode(json.dumps({**extra, "type": type, name: value}))
        except InvalidCommand as error:
            assert error.code is ErrorCode.BAD_REQUEST


@given(anything)
def test_parse_object_equals_json_or_rejects(value):
    text = json.dumps({"x": value})
    try:
        parsed = parse_object(text)
    except InvalidJson:
        return
    assert parsed == json.loads(text)


def test_close_codes_have_retry_rule_and_short_reason():
    assert CloseCode.SLOW_CONSUMER.retry is Retry.BACKOFF
    assert CloseCode.DRAINING.retry is Retry.AT_ONCE
    assert CloseCode.BAD_CREDENTIAL.retry is Retry.STOP
    for code in CloseCode:
        assert 4000 <= code < 5000
        assert code.reason.endswith(".")
        assert len(code.reason.encode()) <= 123  # RFC 6455, 5.5: the limit of a control frame


def test_reply_has_id_only_if_request_had_one():
    assert reply("pong", None) == {"type": "pong"}
    assert reply("pong", 0) == {"type": "pong", "id": 0}
    assert error(ErrorCode.RATE_LIMITED, "Wait.", "a", 5) == {
        "type": "error",
        "code": "rate_limited",
        "message": "Wait.",
        "id": "a",
        "retry_after_ms": 5,
    }

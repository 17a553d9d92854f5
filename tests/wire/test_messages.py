"""What a stranger may send, and what it is answered."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.wire import commands
from django_cocobase_realtime.wire.codes import CloseCode, ErrorCode, Retry
from django_cocobase_realtime.wire.commands import InvalidCommand, decode
from django_cocobase_realtime.wire.frames import error, reply
from django_cocobase_realtime.wire.json import InvalidJson, parse_object


def refusal(text):
    with pytest.raises(InvalidCommand) as caught:
        decode(text)
    return caught.value


def test_the_pages_frames():
    assert decode('{"type": "auth", "token": "YOUR_API_KEY_OR_JWT"}').token == "YOUR_API_KEY_OR_JWT"
    frame = '{"type":"subscribe","collection":"posts","filters":{"status":"published"}}'
    assert decode(frame).filters == {"status": "published"}
    assert decode('{"type":"join","room":"chat-123"}').room == "chat-123"
    said = '{"type":"broadcast","room":"r","message":{"user":"John","text":"Hello everyone!"}}'
    assert decode(said).message == {"user": "John", "text": "Hello everyone!"}
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
def test_bad_requests_say_what_to_mend(text, words):
    error = refusal(text)
    assert error.code is ErrorCode.BAD_REQUEST
    assert words in str(error)
    assert str(error).endswith(".")
    assert len(str(error)) < 200


def test_the_bounds_themselves_are_allowed():
    parse_object('{"x":' + "[" * 15 + "]" * 15 + "}")
    parse_object('{"x":[' + ",".join('{"a":1}' for _ in range(511)) + "]}")
    parse_object('{"x":9007199254740992,"y":-9007199254740992}')
    assert decode('{"type":"ping","id":"' + "x" * 64 + '"}').id == "x" * 64


def test_unknown_types_keep_their_id_and_name_the_known_ones():
    error = refusal('{"type":"nope","id":7}')
    assert (error.code, error.id) == (ErrorCode.UNKNOWN_TYPE, 7)
    assert "subscribe" in str(error)
    assert refusal('{"type":"join","id":"a"}').id == "a"


@given(st.text())
def test_no_text_does_anything_but_decode_or_be_refused(text):
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
def test_no_frame_does_anything_but_decode_or_be_refused(type, extra, value):
    names = ("id", "token", "collection", "filters", "room", "message", "events", "fields")
    for name in names:
        try:
            decode(json.dumps({**extra, "type": type, name: value}))
        except InvalidCommand as error:
            assert error.code is ErrorCode.BAD_REQUEST


@given(anything)
def test_scan_gives_what_json_would_or_refuses(value):
    text = json.dumps({"x": value})
    try:
        found = parse_object(text)
    except InvalidJson:
        return
    assert found == json.loads(text)


def test_close_codes_say_what_to_do():
    assert CloseCode.SLOW_CONSUMER.retry is Retry.BACKOFF
    assert CloseCode.DRAINING.retry is Retry.AT_ONCE
    assert CloseCode.BAD_CREDENTIAL.retry is Retry.STOP
    for code in CloseCode:
        assert 4000 <= code < 5000
        assert code.reason.endswith(".")
        assert len(code.reason.encode()) <= 123  # RFC 6455, 5.5: a control frame's bound


def test_replies_carry_an_id_only_where_there_was_one():
    assert reply("pong", None) == {"type": "pong"}
    assert reply("pong", 0) == {"type": "pong", "id": 0}
    assert error(ErrorCode.RATE_LIMITED, "Wait.", "a", 5) == {
        "type": "error",
        "code": "rate_limited",
        "message": "Wait.",
        "id": "a",
        "retry_after_ms": 5,
    }

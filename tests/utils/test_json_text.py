"""Every value that JSON of a row can have is encoded, and read again from the log."""

import json

from django.core.serializers.json import DjangoJSONEncoder
from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.events import Broadcast, Change, DirectMessage, Sender, decode, encode
from django_cocobase_realtime.utils.json_text import (
    MAX_DEPTH,
    clean,
    decode_json,
    encode_json,
    round_trip,
)
from django_cocobase_realtime.wire import frames

TEXTS = st.text(st.characters(codec=None), max_size=4) | st.sampled_from(
    ["\ud800", "\udfff\ud800", "\0", "\ud83d\ude00", "\U0001f600"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(TEXTS, values, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_every_value_is_encoded(value):
    text = encode_json(value)
    cleaned = json.loads(text.decode("utf-8"))
    assert encode_json(cleaned) == text
    assert decode_json(text) == cleaned
    # as a trigger writes it: escaped
    assert encode_json(decode_json(json.dumps(value))) == text


@given(VALUES, TEXTS)
def test_every_value_can_be_sent(value, text):
    frame = frames.encode({"type": "event", "document": {"id": text, "data": {text: value}}})
    assert json.loads(frame.encode())["type"] == "event"
    change = Change(
        "1", "c", "updated", text, "t", "", before={text: value}, after={}, changed=(text,)
    )
    sender = Sender(text, text)
    room = Broadcast(room="r", project="p", message=value, at="", sender=sender)
    direct = DirectMessage(project="p", message=value, at="", user=text)
    for event in (change, room, direct):
        decoded = decode(encode(event))
        assert type(decoded) is type(event)
        assert encode(decoded) == encode(event)


def test_values_that_can_be_encoded_are_not_changed():
    value = {"a": [1, "ä", None, 10**50, {"b": "\0"}], "c": (1, 2)}
    assert json.loads(encode_json(value)) == {**value, "c": [1, 2]}


def test_lone_surrogates_become_a_replacement_character():
    assert clean({"\ud800": ["a\udc00b", "\ud83d\ude00"]}) == {"\ufffd": ["a\ufffdb", "\U0001f600"]}


def test_deep_values_are_cut_off():
    value = []
    for _ in range(50_000):
        value = [value]
    text = encode_json(value).decode()
    assert text == "[" * MAX_DEPTH + "null" + "]" * MAX_DEPTH
    # the value of a field, which the project saves
    assert encode_json(round_trip(value, DjangoJSONEncoder)).decode() == text

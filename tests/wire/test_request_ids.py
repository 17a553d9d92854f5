"""The ``id`` of requests that break a rule."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_cocobase_realtime.wire.commands import InvalidCommand, decode
from django_cocobase_realtime.wire.request_ids import find_id, find_id_in_oversized

DEEP = "[" * 60_000 + "]" * 60_000


@pytest.mark.parametrize(
    ("text", "id"),
    [
        ('{"type":"subscribe","id":7,"filters":{"n":9007199254740993}}', 7),
        ('{"id":"a","type":"ping","type":"ping"}', "a"),
        ('{"id":1,"message":"\\u0000"}', 1),
        ('{"message":"\\ud83d","id":-2}', -2),
        ('{"message":"\ud83d","id":2}', 2),
        ('{"message":NaN , "id" : 2}', 2),
        ('{"message":-Infinity,"id":2}', 2),
        ('{"message":1e999,"id":2}', 2),
        ('{"message":{"id":3,"x":' + DEEP + '},"id":2}', 2),
        ('{"id":2,"x":' + DEEP + "}", 2),
        ('{"x":{' + ",".join(f'"{n}":1' for n in range(513)) + '},"id":"a b,:{"}', "a b,:{"),
        ('{"x":"\\",\\"id\\":5","\\u0069d":6,"y":1e999}', 6),
        ('{"x":["id",5],"y":"id","z":1e999}', None),
        ('{"x":{"id":5},"y":1e999}', None),
        ('{"id":9007199254740993}', None),
        ('{"id":' + "9" * 50_000 + "}", None),
        ('{"id":"\\ud83d"}', None),
        ('{"id":"\ud83d","x":NaN}', None),
        ('{"id":"' + "x" * 65 + '","x":NaN}', None),
        ('{"id":true,"x":NaN}', None),
        ('{"id":1.0,"x":NaN}', None),
        ('{"id":[1],"x":NaN}', None),
        ('{"id":{},"n":9007199254740993}', None),
        # the outer object is not complete, or there is none
        ('{"id":7,"n":9007199254740993', None),
        ('{"id":7,"n":' + "[" * 60_000, None),
        ('{"id":7,"n":"x', None),
        ('[{"id":7}]', None),
        ('"id":7', None),
        ("", None),
    ],
)
def test_id_of_a_frame_that_breaks_a_rule(text, id):
    with pytest.raises(InvalidCommand) as raised:
        decode(text)
    assert raised.value.id == id
    assert type(raised.value.id) is type(id)


ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=64)
ids |= st.integers(-(2**53), 2**53)
# values that `json.dumps` accepts, also those that frames must not contain
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
)


@given(
    ids,
    st.dictionaries(st.text(st.characters()), values),
    st.dictionaries(st.text(st.characters()), values),
    st.booleans(),
    st.sampled_from([None, 2]),
)
def test_id_is_found_in_any_object(id, before, after, is_ascii, indent):
    frame = {name: value for name, value in before.items() if name != "id"}
    frame["id"] = id
    frame |= {name: value for name, value in after.items() if name != "id"}
    text = json.dumps(frame, ensure_ascii=is_ascii, indent=indent)
    assert find_id(text) == id
    try:
        decode(text)
    except InvalidCommand as error:
        assert error.id == id


@given(ids, st.dictionaries(st.text(st.characters()), values), st.booleans())
def test_id_is_found_at_either_end_of_an_oversized_object(id, members, is_first):
    members = {name: value for name, value in members.items() if name != "id"}
    padding = {"padding": '"id":1},{' * 20_000}
    frame = {"id": id, **members, **padding} if is_first else {**padding, **members, "id": id}
    assert find_id_in_oversized(json.dumps(frame)) == id


@given(st.text(st.sampled_from('{}[]",:\\id1 ')))
def test_search_accepts_any_text(text):
    find_id(text)
    find_id_in_oversized(text)


@pytest.mark.parametrize("part", ['"', '\\"', "[", '{"id":', '"id":1,', "\\", "x", '"x'])
def test_time_of_the_search_is_proportional_to_the_length(part):
    text = '{"x":' + part * (1_000_000 // len(part))
    started_at = time.process_time()
    find_id(text)
    assert time.process_time() - started_at < 5  # a quadratic search takes minutes
    started_at = time.process_time()
    for _ in range(100):
        find_id_in_oversized(text)
    assert time.process_time() - started_at < 1

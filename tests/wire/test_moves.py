"""Splitting a move into frames."""

import json

import pytest

from django_cocobase_realtime.wire import frames
from django_cocobase_realtime.wire.codes import ResyncReason

NAMES = {"subscription": "posts", "cursor": "c1", "scope": "new"}


def split(entered, left, max_bytes):
    documents = [frames.encode_part({"id": id, "data": data}) for id, data in entered]
    texts = list(frames.moved(**NAMES, entered=documents, left=left, max_bytes=max_bytes))
    return texts, [json.loads(text) for text in texts]


def test_small_move_is_one_frame_with_the_new_scope():
    _, parts = split([("1", {"title": "é"})], ["2", "3"], 10_000)
    assert parts == [
        {
            "type": "moved",
            "subscription": "posts",
            "entered": [{"id": "1", "data": {"title": "é"}}],
            "left": ["2", "3"],
            "cursor": "c1",
            "scope": "new",
            "more": False,
        }
    ]


def test_empty_move_still_has_the_new_scope():
    _, parts = split([], [], 10_000)
    assert [(part["scope"], part["more"]) for part in parts] == [("new", False)]


@pytest.mark.parametrize("max_bytes", [200, 333, 1000, 5000])
def test_parts_are_bounded_and_only_the_last_one_has_the_scope(max_bytes):
    entered = [(str(n), {"title": "ü" * (n % 17)}) for n in range(300)]
    left = [f"{n}é" for n in range(1000, 1500)]
    texts, parts = split(entered, left, max_bytes)
    assert len(parts) > 1
    assert max(len(text.encode()) for text in texts) <= max_bytes
    assert [part["more"] for part in parts] == [True] * (len(parts) - 1) + [False]
    assert [part.get("scope") for part in parts] == [None] * (len(parts) - 1) + ["new"]
    assert {part["cursor"] for part in parts} == {"c1"}
    documents = [document for part in parts for document in part["entered"]]
    assert [(each["id"], each["data"]) for each in documents] == entered
    assert [id for part in parts for id in part["left"]] == left
    # what must no longer be shown comes first
    assert [bool(part["entered"]) for part in parts] == sorted(bool(p["entered"]) for p in parts)
    # the parts are not smaller than they must be
    total = sum(len(text.encode()) for text in texts)
    assert len(parts) <= 2 * total / max_bytes + 1


def test_document_larger_than_a_frame_has_a_frame_of_its_own():
    entered = [("1", {}), ("2", {"text": "x" * 3000}), ("3", {})]
    _, parts = split(entered, [], 1000)
    assert [[each["id"] for each in part["entered"]] for part in parts] == [["1"], ["2"], ["3"]]


def test_documents_are_read_one_part_at_a_time():
    read = []

    def documents():
        for n in range(100):
            read.append(n)
            yield frames.encode_part({"id": str(n), "data": {}})

    parts = frames.moved(**NAMES, entered=documents(), left=[], max_bytes=400)
    first = json.loads(next(parts))
    assert len(read) == len(first["entered"]) + 1


def test_resync_names_a_cursor_only_without_a_snapshot():
    reason = ResyncReason.LIMIT_EXCEEDED
    frame = frames.resync("posts", reason, scope="new")
    assert json.loads(frames.encode(frame)) == {
        "type": "resync",
        "subscription": "posts",
        "reason": "limit_exceeded",
        "scope": "new",
    }
    assert frames.resync("posts", reason, scope="new", cursor="c1")["cursor"] == "c1"

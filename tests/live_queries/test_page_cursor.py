"""Cursors of pages: which ones the server accepts, and what a client can learn from them."""

from base64 import urlsafe_b64decode

import pytest
from django.test import override_settings

from django_cocobase_realtime.filters.order import BY_KEY
from django_cocobase_realtime.live_queries import page_cursor
from django_cocobase_realtime.live_queries.page_cursor import InvalidPageCursor
from tests.support.as_of import by

ORDER = by("-priority", "title")
VALUES = (3, "ä\ud800\0", None, 1.5, True, "17")


def encode():
    return page_cursor.encode("tickets", ORDER, VALUES)


def test_cursor_has_the_values():
    assert page_cursor.decode("tickets", ORDER, encode()) == (3, "ä\ufffd\0", *VALUES[2:])


@pytest.mark.parametrize(
    ("stream", "order"),
    [("posts", ORDER), ("tickets", by("priority", "title")), ("tickets", BY_KEY)],
)
def test_cursor_of_another_stream_or_order_is_refused(stream, order):
    with pytest.raises(InvalidPageCursor):
        page_cursor.decode(stream, order, encode())


@pytest.mark.parametrize("text", ["", "x", "é", "\ud800", "gAAAAA", "0" * 12 + ".1.1"])
def test_text_that_is_no_cursor_is_refused(text):
    with pytest.raises(InvalidPageCursor):
        page_cursor.decode("tickets", ORDER, text)


def test_changed_cursor_is_refused():
    cursor = encode()
    for index in range(0, len(cursor) - 4, 7):
        changed = cursor[:index] + ("A" if cursor[index] != "A" else "B") + cursor[index + 1 :]
        with pytest.raises(InvalidPageCursor):
            page_cursor.decode("tickets", ORDER, changed)


def test_values_cannot_be_read():
    cursor = page_cursor.encode("tickets", ORDER, ["secret diagnosis", "1"])
    assert b"secret" not in urlsafe_b64decode(cursor)
    assert cursor != page_cursor.encode("tickets", ORDER, ["secret diagnosis", "1"])


def test_cursor_outlives_a_secret_key_that_is_a_fallback():
    cursor = encode()
    with override_settings(SECRET_KEY=b"new"), pytest.raises(InvalidPageCursor):
        page_cursor.decode("tickets", ORDER, cursor)
    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["other", "x" * 99]):
        assert encode() != cursor
    from django.conf import settings

    with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
        assert page_cursor.decode("tickets", ORDER, cursor)[0] == 3


def test_values_that_no_request_could_hold_have_no_cursor():
    assert len(page_cursor.encode("tickets", ORDER, ["x" * 16_000])) < 30_000
    assert page_cursor.encode("tickets", ORDER, ["x" * 17_000]) == ""

"""System checks of handlers."""

import pytest

from django_cocobase_realtime.checks import check_settings
from tests.handlers.conftest import handle  # noqa: F401 - a fixture


@pytest.mark.parametrize(
    ("collection", "filters", "id", "part"),
    [
        ("posts", {"title": "a"}, None, None),
        ("nothing", None, "E120", "no collection 'nothing'"),
        ("authors", None, "E121", "has no log"),
        ("posts", {"nothing": 1}, "E122", "nothing"),
        ("posts", {"views": 1}, "E122", "permission_fields"),
    ],
)
def test_handlers_are_checked(handle, settings, collection, filters, id, part):  # noqa: F811
    settings.DEBUG = True
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "fields": ["title"]},
            "authors": {"model": "app.Author", "durable": False, "fields": ["name"]},
        }
    }
    handle(print, collection, filters=filters)
    messages = check_settings()
    if id is None:
        assert messages == []
    else:
        assert [message.id for message in messages] == [f"cocobase_realtime.{id}"]
        assert part in f"{messages[0].msg} {messages[0].hint}"

"""Capture on databases whose UPDATE and DELETE have no RETURNING, such as MariaDB."""

from types import SimpleNamespace

import pytest

from django_cocobase_realtime.capture import deletes, updates
from django_cocobase_realtime.capture.targets import can_return_rows
from django_cocobase_realtime.testing import capture_events
from tests.app.models import Item, Post

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _without_returning(monkeypatch):
    for module in (updates, deletes):
        monkeypatch.setattr(module, "can_return_rows", lambda connection: False)


@pytest.mark.parametrize(
    ("vendor", "can_insert", "expected"),
    [
        ("postgresql", True, True),
        ("sqlite", True, True),
        ("sqlite", False, False),
        ("mysql", True, False),  # MariaDB, which has it for INSERT
        ("mysql", False, False),
        ("oracle", True, False),
    ],
)
def test_databases_whose_updates_return_rows(vendor, can_insert, expected):
    features = SimpleNamespace(can_return_columns_from_insert=can_insert)
    connection = SimpleNamespace(vendor=vendor, features=features)
    assert can_return_rows(connection) is expected


@pytest.mark.parametrize("track", [True, False])
def test_updates_and_deletions_are_recorded(settings, track):
    model = {"model": "app.Post", "track": track}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": model}}
    posts = [Post.objects.create(title=f"{n}") for n in range(3)]
    first, second, third = (str(post.pk) for post in posts)
    with capture_events() as events:
        posts[0].title = "a"
        posts[0].save()
        assert Post.objects.exclude(title="a").update(views=7) == 2
        assert Post.objects.filter(title="2").delete()[0] == 1
        posts[0].delete()
    seen = [(event.op, event.document_id, event.after and event.after["title"]) for event in events]
    assert seen == [
        ("updated", first, "a"),
        ("updated", second, "1"),
        ("updated", third, "2"),
        ("deleted", third, None),
        ("deleted", first, None),
    ]
    assert events[0].changed == (("title", "updated_at") if track else None)


def test_update_without_matching_rows_records_nothing():
    Item.objects.create()
    with capture_events() as events:
        assert Item.objects.filter(pk=-1).update(size=3) == 0
    assert events == []

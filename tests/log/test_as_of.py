"""Rows as of a position: each kind of change, of key and of order, and what is refused."""

import math
from datetime import UTC, date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from uuid import UUID

import pytest

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.filters import parse
from django_cocobase_realtime.filters.orm_order import ordering
from django_cocobase_realtime.log import as_of, touched
from django_cocobase_realtime.log.cursor import Position
from django_cocobase_realtime.log.retention import trim
from django_cocobase_realtime.log.touched import CannotUndo, TooManyTouched
from django_cocobase_realtime.models import LogEvent
from tests.app.models import Everything, LongKey, Patient, Post, Seat, UuidThing
from tests.support.as_of import (
    CAPTURES,
    by,
    head,
    numbered,
    posts_fixture,  # noqa: F401 - a fixture
)
from tests.support.watching import watching

pytestmark = pytest.mark.django_db(transaction=True)


def titles(collection, filter, position, **options):
    filter = parse(filter, collection.schema)
    result = as_of.rows_as_of(collection, filter, position, **{"limit": 100} | options)
    return [change.after["title"] for change in result.documents]


@pytest.mark.parametrize("later", [False, True], ids=["unnumbered", "numbered"])
def test_changes_after_the_position_are_undone(posts, later):
    rows = {title: Post.objects.create(title=title, views=1) for title in "abcd"}
    position = numbered()
    keys = [rows["b"].pk, rows["d"].pk]
    Post.objects.filter(title="a").update(views=2)
    Post.objects.filter(title="a").update(title="z", views=1)
    rows["b"].delete()
    Post.objects.filter(title="c").update(views=2)
    brief = Post.objects.create(title="brief", views=1)
    if later:
        numbered()
    brief.delete()
    Post.objects.create(title="new", views=1)
    assert titles(posts, {"views": 1}, position) == ["a", "b", "c", "d"]
    assert titles(posts, {"views": 1}, position, order=by("-title"), limit=2) == ["d", "c"]
    assert titles(posts, {"title": "z"}, position) == []
    assert titles(posts, {"views": 1}, position, keys=keys) == ["b", "d"]
    assert titles(posts, {"views": 1}, numbered()) == ["z", "d", "new"]


def test_differences_of_two_filters(posts):
    for views in range(6):
        Post.objects.create(title=str(views), views=views)
    old, new = (parse({"views_in": views}, posts.schema) for views in ([0, 1, 2, 3], [2, 3, 4, 5]))
    position = numbered()
    Post.objects.filter(views=0).update(views=5)
    Post.objects.filter(views=4).delete()
    Post.objects.filter(views=2).update(views=0)
    ids = {str(pk): title for pk, title in Post.objects.values_list("pk", "title")}
    result = as_of.differences_as_of(posts, old, new, position, limit=2)
    assert [change.after["title"] for change in result.entered] == ["4", "5"]
    assert [ids[id] for id in result.left] == ["0", "1"]
    assert not result.is_cut
    nothing = parse({"views": 99}, posts.schema)
    for pair in ((nothing, old), (old, nothing)):
        assert as_of.differences_as_of(posts, *pair, position, limit=3).is_cut


def test_differences_since_an_earlier_position(posts):
    rows = [Post.objects.create(title=str(n), views=n) for n in range(7)]
    ids = [str(row.pk) for row in rows]
    old, new = (parse({"views_in": views}, posts.schema) for views in ([0, 1, 2, 3], [2, 3, 4, 5]))
    since = numbered()
    Post.objects.filter(title="0").update(views=9)  # was visible, and is not
    Post.objects.filter(title="2").update(title="2!")  # was visible, and is
    Post.objects.filter(title="4").update(views=9)  # was not visible, and is not
    Post.objects.filter(title="6").update(views=5)  # was not visible, and is
    rows[3].delete()
    Post.objects.create(title="new", views=0)  # would have been visible
    position = numbered()
    Post.objects.filter(title="5").update(title="later")
    result = as_of.differences_as_of(posts, old, new, position, since=since, limit=10)
    assert sorted(change.after["title"] for change in result.entered) == ["2!", "5", "6"]
    assert sorted(result.left) == sorted(ids[n] for n in (0, 1, 3))


def test_a_row_about_which_the_old_filter_decides_nothing_has_entered(posts):
    Post.objects.create(title="a")
    old = parse({"author": None}, posts.schema, trusted=True)
    everything = parse({}, posts.schema)
    result = as_of.differences_as_of(posts, old, everything, numbered(), limit=10)
    assert [change.after["title"] for change in result.entered] == ["a"]


def test_many_events_are_undone_without_reading_all_of_them(posts):
    rows = [Post.objects.create(title=str(n)) for n in range(40)]
    position = numbered()
    for n in range(3):
        Post.objects.update(views=n + 1)
    numbered()
    keys = [rows[0].pk, rows[1].pk]
    rows[0].delete()
    assert titles(posts, {"views": 0}, position) == [str(n) for n in range(40)]
    assert titles(posts, {}, position, keys=keys) == ["0", "1"]


def test_too_many_touched_documents_are_refused(posts, monkeypatch):
    rows = [Post.objects.create(title=str(n)) for n in range(40)]
    position = numbered()
    Post.objects.update(views=1)
    monkeypatch.setattr(touched, "TOUCHED_LIMIT", 39)
    with pytest.raises(TooManyTouched):
        titles(posts, {}, position)
    assert len(titles(posts, {}, numbered())) == 40
    if posts.capture != "triggers":
        # only the documents that are asked for count
        images = as_of.images_as_of(posts, [rows[3].pk], position)
        assert [image["views"] for image in images.values()] == [0]
    monkeypatch.setattr(touched, "TOUCHED_LIMIT", 40)
    assert len(titles(posts, {"views": 0}, position)) == 40
    monkeypatch.setattr(touched, "TOUCHED_EVENTS", 39)
    with pytest.raises(TooManyTouched):
        titles(posts, {}, position)
    monkeypatch.setattr(touched, "TOUCHED_EVENTS", 40)
    monkeypatch.setattr(touched, "TOUCHED_BYTES", 1000)
    with pytest.raises(TooManyTouched):
        titles(posts, {}, position)


def test_positions_that_the_log_does_not_reach_are_refused(posts):
    Post.objects.create(title="a")
    position = numbered()
    Post.objects.update(views=1)
    numbered()
    for wrong in (Position("other", position.seq), Position(position.epoch, position.seq + 2)):
        with pytest.raises(CannotUndo):
            titles(posts, {}, wrong)
    trim("default", max_age=None, max_events=0)
    with pytest.raises(CannotUndo):
        titles(posts, {}, position)
    assert titles(posts, {}, head()) == ["a"]


def test_images_that_are_unknown_or_lack_fields_are_refused():
    with watching(Post, track=False):
        collection = registry.get("post")
        first = Post.objects.create(title="a")
        second = Post.objects.create(title="b")
        position, keys = numbered(), [second.pk]
        first.views = 1
        first.save()
        second.delete()
        with pytest.raises(CannotUndo):
            titles(collection, {}, position)
        assert titles(collection, {}, position, keys=keys) == ["b"]
    with watching(Post):
        position = numbered()
        Post.objects.update(views=2)
        LogEvent.objects.filter(seq=None).update(before='{"title": "a"}')
        with pytest.raises(CannotUndo):
            titles(registry.get("post"), {}, position)


@pytest.mark.parametrize("capture", CAPTURES)
def test_keys_and_fields_of_other_kinds(capture):
    with CAPTURES[capture](Patient, Seat, UuidThing, LongKey):
        patient = Patient.objects.create(name="a", diagnosis="flu", packed=b"x")
        Seat.objects.create(event="b", number=2, holder="ada")
        Seat.objects.create(event="a", number=10, holder="bob")
        Seat.objects.create(event="a", number=9)
        things = [UuidThing.objects.create(name=str(n)) for n in range(3)]
        LongKey.objects.create(path="p")
        positions = {name: numbered(name) for name in ("patient", "seat", "uuidthing", "longkey")}
        before = {
            name: as_of.rows_as_of(
                registry.get(name), parse({}, registry.get(name).schema), position, limit=10
            )
            for name, position in positions.items()
        }
        patient.diagnosis = "cold"
        patient.save()
        Seat.objects.all().delete()
        UuidThing.objects.filter(pk=things[1].pk).update(name="x")
        things[0].delete()
        LongKey.objects.update(size=1)
        for name, position in positions.items():
            collection = registry.get(name)
            filter = parse({}, collection.schema)
            assert as_of.rows_as_of(collection, filter, position, limit=10) == before[name]
        assert [seat.document_id for seat in before["seat"].documents] == [
            *('["a",9]', '["a",10]', '["b",2]')
        ]
        patients = registry.get("patient")
        flu = parse({"diagnosis": "flu"}, patients.schema, trusted=True)
        (document,) = as_of.rows_as_of(patients, flu, positions["patient"], limit=1).documents
        assert document.after["diagnosis"] == "flu"


EDGES = [
    ("float", [None, math.nan, -math.inf, -1.5, -0.0, 2.0, math.inf]),
    ("decimal", [None, Decimal("-3.5"), Decimal(0), Decimal("10.0001")]),
    ("ip", [None, "9.0.0.1", "10.0.0.1", "::1"]),
    ("date", [None, date(1, 1, 1), date(2026, 1, 1)]),
    ("moment", [None, datetime(1, 1, 2, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC)]),
    ("time", [None, time_of_day(0), time_of_day(1, 2, 3)]),
    ("boolean", [None, False, True]),
    ("uuid", [None, UUID(int=1), UUID(int=2**127)]),
    ("char", ["", "B", "a", "é", "\uff5e", "\U0001f600"]),
    ("big", [-(2**60), 0, 2**60]),
]


@pytest.mark.parametrize(("name", "edges"), EDGES, ids=[name for name, _ in EDGES])
def test_undone_rows_are_where_the_database_would_have_them(name, edges):
    with watching(Everything):
        collection = registry.get("everything")
        for value in [*edges[::-1], *edges]:
            Everything.objects.create(**{name: value})
        position = numbered("everything")
        orders = [
            [
                row.pk
                for row in Everything.objects.order_by(*ordering(Everything, by(order), "default"))
            ]
            for order in (name, f"-{name}")
        ]
        filter = parse({}, collection.schema)
        for row in Everything.objects.all()[1::3]:
            row.delete()
        for order, expected in zip((name, f"-{name}"), orders, strict=True):
            keys = as_of.keys_as_of(collection, filter, position, limit=100, order=by(order)).keys
            assert keys == expected

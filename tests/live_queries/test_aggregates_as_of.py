"""Aggregates as of a position, compared with the fold of the log up to it.

``AS_OF_SECONDS`` makes the random histories longer. Their seed is in the message of a failure.
"""

import os
import random
import threading
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from django.db import connection, connections, transaction
from django.db.models import F

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.filters import parse
from django_cocobase_realtime.live_queries import aggregates
from django_cocobase_realtime.live_queries.aggregates import aggregates_as_of
from django_cocobase_realtime.live_queries.fold import Fold, TooManyGroups
from django_cocobase_realtime.live_queries.queries import AggregateQuery
from django_cocobase_realtime.log import touched
from django_cocobase_realtime.log.cursor import Position
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.log.touched import CannotUndo, TooManyTouched
from tests.app.models import Author, Everything, Patient, Post, Restaurant, Seat
from tests.log import test_as_of_history as as_of_history
from tests.relations_app.models import Folded, Organization, Project
from tests.support.as_of import (
    CAPTURES,
    head,
    numbered,
    posts_fixture,  # noqa: F401 - a fixture
)
from tests.support.log import read_all
from tests.support.watching import watching

pytestmark = pytest.mark.django_db(transaction=True)

SECONDS = float(os.environ.get("AS_OF_SECONDS", "0.7"))
COUNT = AggregateQuery()
QUERIES = [
    COUNT,
    AggregateQuery(sum=("rating", "views"), group_by=("status",)),
    AggregateQuery(avg=("rating",), min=("rating", "created_at"), max=("rating", "title")),
    AggregateQuery(max=("views",), group_by=("title", "rating")),
]
ROWS = as_of_history.FILTERS


def read(collection, filter, query, position, **options):
    filter = parse(filter, collection.schema)
    options = {"max_groups": 1000} | options
    return aggregates_as_of(collection, filter, query, position, **options)


def shown(fold):
    """Return the groups for frames, in the order of their keys."""
    return sorted((fold.result(key) for key in fold), key=repr)


def folded(collection, filter, query, images):
    """Return the aggregates of images that match a filter."""
    filter = parse(filter, collection.schema)
    fold = Fold(query, collection.schema)
    for image in images:
        row = collection.row(image)
        if filter.matches(row) and not collection.is_deleted(image):
            fold.apply(None, row)
    return fold


class Reader(threading.Thread):
    """Reads aggregates as of positions, while others write. ``results`` are calls and folds."""

    def __init__(self, collection, history, chance, read_one):
        super().__init__()
        self._collection, self._history, self._chance = collection, history, chance
        self._read_one = read_one
        self.results, self.refused, self.errors = [], 0, []

    def run(self):
        try:
            position = None
            while self._history.is_running:
                if position is None or self._chance.random() < 0.7:
                    position = head()
                filter, query = (self._chance.choice(list) for list in (ROWS, QUERIES))
                try:
                    fold = self._read_one(self._collection, filter, query, position)
                except TooManyTouched:
                    self.refused += 1
                else:
                    self.results.append((position.seq, filter, query, fold))
        except Exception as error:
            self.errors.append(error)
        finally:
            connections.close_all()


def read_in_transaction(*args):
    """Read within a transaction, whose queries see different states on PostgreSQL."""
    with transaction.atomic():
        return read(*args)


@pytest.mark.parametrize("read_one", [read, read_in_transaction])
def test_aggregates_are_those_of_the_log_up_to_the_position(posts, monkeypatch, read_one):
    if read_one is read_in_transaction and connection.vendor == "sqlite":
        pytest.skip("A transaction of SQLite sees one state.")
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    read_touched = touched.read_touched

    def read_slowly(*args, **options):
        # so that others commit between the log and the rows
        as_of_history.time.sleep(chance.random() * 0.004)
        documents = read_touched(*args, **options)
        as_of_history.time.sleep(chance.random() * 0.004)
        return documents

    monkeypatch.setattr(aggregates, "read_touched", read_slowly)
    monkeypatch.setattr(aggregates, "MAX_READS", 10)
    monkeypatch.setattr(as_of_history, "SECONDS", SECONDS)
    for _ in range(30):
        Post.objects.create(**as_of_history.values(chance))
    sequence("default", "post")
    with as_of_history.History(seed) as history:
        readers = [
            Reader(posts, history, random.Random(f"{seed} r{n}"), read_one)
            for n in range(as_of_history.READERS)
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert not [error for reader in readers for error in reader.errors]
    truth = as_of_history.fold(posts, read_all("post"))
    results = [result for reader in readers for result in reader.results]
    wrong = []
    for seq, filter, query, fold in results:
        expected = folded(posts, filter, query, truth[seq].values())
        if expected.differences(fold) or shown(expected) != shown(fold):
            wrong.append((seq, filter, query, shown(expected), shown(fold)))
    refused = sum(reader.refused for reader in readers)
    print(f"seed {seed}: {len(wrong)} of {len(results)} wrong, {refused} refused")
    assert not wrong, f"seed {seed}: {len(wrong)} of {len(results)}, such as {wrong[0]}"
    assert len(results) > refused


@pytest.mark.parametrize("later", [False, True], ids=["unnumbered", "numbered"])
def test_changes_after_the_position_are_undone(posts, later):
    rows = [Post.objects.create(title="a", views=n, rating=n) for n in range(5)]
    query = AggregateQuery(sum=("views",), max=("views",))
    before = {"count": 4, "sum": {"views": 10}, "max": {"views": 4}}
    position = numbered()
    rows[4].delete()
    Post.objects.filter(views=3).update(views=100)
    Post.objects.filter(views=100).update(views=50, title="b")
    Post.objects.create(title="a", views=7).delete()
    Post.objects.create(title="a", views=8)
    if later:
        numbered()
    assert read(posts, {"views_gt": 0, "title": "a"}, query, position).result(()) == before
    after = {"count": 3, "sum": {"views": 11}, "max": {"views": 8}}
    assert read(posts, {"views_gt": 0, "title": "a"}, query, numbered()).result(()) == after
    assert read(posts, {"views_gt": 0, "title": "a"}, query, None).result(()) == after


def test_an_extreme_that_is_deleted_twice_in_one_transaction(posts):
    for views in (1, 2, 3):
        Post.objects.create(title="a", views=views)
    query = AggregateQuery(max=("views",), group_by=("title",))
    position = numbered()
    with transaction.atomic():
        Post.objects.filter(views=3).delete()
        Post.objects.filter(views=2).delete()
    fold = folded(posts, {}, query, [change.after for change in read_all("post")[:3]])
    deletions = read_all("post")[3:]
    for change, greatest in zip(deletions, (2, 1), strict=True):
        (key,) = fold.apply(posts.row(change.before), None)
        assert fold.needs == {key}
        place = Position(position.epoch, change.seq)
        fold.take(read(posts, {}, query, place, groups=fold.needs), fold.needs)
        (key,) = fold
        assert fold.result(key)["max"] == {"views": greatest}


def test_some_groups_are_read_alone(posts, django_assert_max_num_queries):
    author = Author.objects.create(name="x")
    for title, rating in (("a", 1), ("a", None), ("b", 1), ("c", 2)):
        Post.objects.create(title=title, rating=rating, author=author if rating == 1 else None)
    query = AggregateQuery(group_by=("title", "rating", "author"), min=("views",))
    everything = read(posts, {}, query, numbered())
    for key in everything:
        some = read(posts, {}, query, numbered(), groups=[key])
        assert list(some) == [key]
        assert some.result(key) == everything.result(key)
    keys = list(everything)[1:]
    assert set(read(posts, {}, query, numbered(), groups=keys)) == set(keys)
    Post.objects.filter(title="b").update(views=1)
    assert set(read(posts, {}, query, head(), groups=keys)) == set(keys)


def test_values_of_every_kind_make_groups_and_extremes():
    moment = datetime(2026, 1, 2, 3, 4, 5, 678, UTC)
    values = [
        {"big": 2**63 - 1, "boolean": True, "char": "ä", "date": date(2026, 1, 2)},
        {"big": -(2**63), "boolean": False, "char": "B", "moment": moment},
        {"big": 5, "boolean": None, "decimal": Decimal("0.1"), "ip": "::ffff:1.2.3.4"},
        {"big": 5, "decimal": Decimal("12345678901.3456"), "ip": "1.2.3.4", "float": 1.5},
        {"big": 6, "time": moment.time(), "uuid": "12345678-1234-1234-1234-123456789012"},
        {"big": 7, "float": float("inf"), "integer": 4, "text": "\uff5e", "positive": 2**62},
        {"big": 7, "float": -1.5, "integer": -4, "text": "\U0001f600", "positive": 2**62},
    ]
    numbers = ("big", "decimal", "integer", "double", "positive")
    ordered = (*numbers, "float", "date", "moment", "time", "text", "char")
    queries = [AggregateQuery(sum=numbers, avg=numbers, min=ordered, max=ordered)]
    groups = ("big", "boolean", "char", "date", "moment", "decimal", "ip", "time", "uuid", "text")
    queries += [
        AggregateQuery(group_by=(name,), sum=("big",), max=("float", "text"))
        for name in (*groups, "double", "id")
    ]
    with watching(Everything):
        collection = registry.get("everything")
        for row in values:
            Everything.objects.create(**row)
        position = numbered("everything")
        images = [change.after for change in read_all("everything")]
        for query in queries:
            expected, fold = (
                folded(collection, {}, query, images),
                read(collection, {}, query, position),
            )
            assert not expected.differences(fold), query
            assert shown(expected) == shown(fold)
            for key in expected:
                selected = read(collection, {}, query, position, groups=[key])
                assert [key] == list(selected), query
        # what has changed is added by the fold
        Everything.objects.update(text="x", integer=F("integer") + 1)
        for query in queries:
            fold = read(collection, {}, query, position)
            assert shown(folded(collection, {}, query, images)) == shown(fold)


def test_sums_beyond_64_bits_and_of_many_decimals_are_exact():
    with watching(Everything):
        collection = registry.get("everything")
        largest = 2**63 - 1
        Everything.objects.bulk_create(
            [Everything(big=largest, decimal=Decimal(n) / 10_000) for n in range(1, 1001)]
            + [Everything(big=-1, decimal=Decimal("-0.0001"))]
        )
        query = AggregateQuery(sum=("big", "decimal"), avg=("big",))
        fold = read(collection, {}, query, numbered("everything"))
        total = 1000 * largest - 1
        assert fold.result(()) == {
            "count": 1001,
            "sum": {"big": str(total), "decimal": "50.0499"},
            "avg": {"big": {"sum": str(total), "n": 1001}},
        }


def test_decimals_that_sqlite_cannot_sum_as_integers():
    with watching(Everything):
        collection = registry.get("everything")
        query = AggregateQuery(sum=("decimal",))
        for value in ("1000000000000000", "7000000000000000", "0.0001"):
            Everything.objects.create(decimal=Decimal(value))
        result = read(collection, {}, query, numbered("everything")).result(())
        assert result["sum"]["decimal"] == "8000000000000000.0001"


def test_decimals_whose_sum_exceeds_64_bits(monkeypatch):
    monkeypatch.setattr(aggregates, "MAX_SCALED_DIGITS", 20)
    with watching(Everything):
        collection = registry.get("everything")
        for _ in range(3):
            Everything.objects.create(decimal=Decimal(4 * 10**14))
        query = AggregateQuery(sum=("decimal",))
        result = read(collection, {}, query, numbered("everything")).result(())
        assert result["sum"]["decimal"] == "1200000000000000.0000"


@pytest.mark.skipif("connection.vendor != 'sqlite'")
def test_decimals_are_summed_as_documents_show_them(posts):
    """An expression of SQL leaves more decimal places in SQLite than the field has."""
    query = AggregateQuery(sum=("rating",), min=("rating",))
    for rating in ("0.25", "1.15", "0.35", "-0.25", "2.30", "0.01", "3.33"):
        Post.objects.create(title="a", rating=Decimal(rating))
    for factor in (Decimal("0.5"), Decimal("1.1"), Decimal("0.333")):
        Post.objects.update(rating=F("rating") * factor)
        fold = read(posts, {}, query, numbered())
        images = {change.document_id: change.after for change in read_all("post")}
        assert shown(folded(posts, {}, query, images.values())) == shown(fold)


@pytest.mark.skipif("connection.vendor != 'sqlite'")
def test_values_that_are_no_numbers_are_left_out_on_sqlite(posts):
    Post.objects.create(title="a", rating=Decimal("1.50"), views=3)
    Post.objects.create(title="b", rating=Decimal("2.50"), views=4)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE app_post SET rating = 'x', views = 'y' WHERE title = 'b'")
    numbers = ("rating", "views")
    query = AggregateQuery(sum=numbers, avg=numbers, min=numbers, max=numbers)
    result = read(posts, {}, query, numbered()).result(())
    assert result["count"] == 2
    assert result["avg"] == {
        "rating": {"sum": "1.50", "n": 1},
        "views": {"sum": 3, "n": 1},
    }
    assert result["max"] == result["min"] == {"rating": "1.50", "views": 3}
    grouped = AggregateQuery(group_by=("views",))
    everything = read(posts, {}, grouped, head())
    assert [group["key"]["views"] for group in shown(everything)] == ["y", 3]
    for key in everything:
        alone = read(posts, {}, grouped, head(), groups=[key])
        assert alone.result(key) == everything.result(key)


@pytest.mark.skipif("connection.vendor != 'postgresql'")
def test_nan_is_left_out_on_postgresql():
    with watching(Everything):
        collection = registry.get("everything")
        Everything.objects.create(decimal=Decimal("1.5"), float=2.5)
        Everything.objects.create()
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE app_everything SET decimal = 'NaN', float = 'NaN' WHERE decimal IS NULL"
            )
        query = AggregateQuery(avg=("decimal",), max=("decimal", "float"))
        assert read(collection, {}, query, numbered("everything")).result(()) == {
            "count": 2,
            "avg": {"decimal": {"sum": "1.5000", "n": 1}},
            "max": {"decimal": "1.5000", "float": 2.5},
        }


@pytest.mark.parametrize("capture", CAPTURES)
def test_groups_of_a_field_that_converts_its_values(capture):
    fields = ["name", "status", "diagnosis"]
    with CAPTURES[capture](Patient, fields=fields):
        collection = registry.get("patient")
        for name, status in (("a", "open"), ("b", "open"), ("c", "done")):
            Patient.objects.create(name=name, status=status, diagnosis=f"is {status}")
        position = numbered("patient")
        Patient.objects.filter(name="a").update(status="done")
        for name, prefix in (("status", ""), ("diagnosis", "is ")):
            query = AggregateQuery(group_by=(name,))
            keys = {
                result["key"][name]: result["count"]
                for result in shown(read(collection, {}, query, position))
            }
            assert keys == {f"{prefix}open": 2, f"{prefix}done": 1}


def test_a_key_of_several_fields():
    with watching(Seat):
        collection = registry.get("seat")
        for number in range(4):
            Seat.objects.create(event="a", number=number, holder="x")
        position = numbered("seat")
        Seat.objects.filter(number__lt=2).delete()
        query = AggregateQuery(sum=("number",), group_by=("event",))
        (result,) = shown(read(collection, {}, query, position))
        assert (result["count"], result["sum"]) == (4, {"number": 6})


def test_rows_of_several_tables():
    with watching(Restaurant):
        collection = registry.get("restaurant")
        for name, stars in (("a", 1), ("a", 2), ("b", 3)):
            Restaurant.objects.create(name=name, stars=stars)
        query = AggregateQuery(sum=("stars",), group_by=("name",))
        position = numbered("restaurant")
        expected = [("a", 2, 3), ("b", 1, 3)]
        for _ in range(2):
            groups = shown(read(collection, {}, query, position))
            assert [(g["key"]["name"], g["count"], g["sum"]["stars"]) for g in groups] == expected
            Restaurant.objects.update(stars=9)


@pytest.mark.parametrize("capture", CAPTURES)
def test_texts_that_a_collation_counts_as_equal_are_different_groups(capture):
    with CAPTURES[capture](Folded):
        collection = registry.get("folded")
        project = Project.objects.create(
            name="p", organization=Organization.objects.create(name="o")
        )
        for name in ("a", "A", "a"):
            Folded.objects.create(name=name, project=project)
        query = AggregateQuery(group_by=("name",), min=("name",))
        for fold in (
            read(collection, {}, query, numbered("folded")),
            read(collection, {}, query, head("folded"), groups=[("a",), ("A",)]),
        ):
            groups = {group["key"]["name"]: group for group in shown(fold)}
            assert {name: group["count"] for name, group in groups.items()} == {"a": 2, "A": 1}
            assert groups["A"]["min"] == {"name": "A"}
        only = read(collection, {}, AggregateQuery(min=("name",)), head("folded"))
        assert only.result(())["min"] == {"name": "A"}


def test_too_many_groups_are_refused(posts, monkeypatch):
    monkeypatch.setattr(aggregates, "ROWS_PER_GROUP", 1)
    for views in range(5):
        Post.objects.create(title="a", views=views)
    query = AggregateQuery(group_by=("views",))
    position = numbered()
    assert len(read(posts, {}, query, position, max_groups=5)) == 5
    with pytest.raises(TooManyGroups):
        read(posts, {}, query, position, max_groups=4)
    Post.objects.filter(views=0).update(views=1)
    assert len(read(posts, {}, query, numbered(), max_groups=4)) == 4
    with pytest.raises(TooManyGroups):
        read(posts, {}, query, position, max_groups=4)


@pytest.mark.skipif("connection.vendor != 'sqlite'")
def test_too_many_rows_of_few_groups_are_refused(posts, monkeypatch):
    monkeypatch.setattr(aggregates, "ROWS_PER_GROUP", 2)
    for rating in ("0.5", "0.502", "0.504"):
        Post.objects.create(title="a", rating=Decimal("0.5"))
        Post.objects.filter(rating=Decimal("0.5")).update(rating=F("rating") * Decimal(rating))
    query = AggregateQuery(group_by=("rating",))
    assert len(read(posts, {}, query, numbered(), max_groups=2)) == 1
    with pytest.raises(TooManyGroups):
        read(posts, {}, query, numbered(), max_groups=1)


def test_positions_that_cannot_be_undone_are_refused(posts, monkeypatch):
    Post.objects.create(title="a")
    position = numbered()
    with pytest.raises(CannotUndo):
        read(posts, {}, COUNT, Position("other", position.seq))
    Post.objects.create(title="a")
    monkeypatch.setattr(touched, "TOUCHED_LIMIT", 0)
    with pytest.raises(TooManyTouched):
        read(posts, {}, COUNT, position)


def test_rows_that_change_faster_than_they_are_read_are_refused(posts, monkeypatch):
    Post.objects.create(title="a")
    position = numbered()
    read_rows = aggregates._read

    def read_and_write(*args, **options):
        Post.objects.create(title="b")
        return read_rows(*args, **options)

    monkeypatch.setattr(aggregates, "_read", read_and_write)
    with transaction.atomic(), pytest.raises(TooManyTouched):
        read(posts, {}, COUNT, position)


def test_a_reading_takes_no_write_lock_though_transactions_of_the_project_do(posts, monkeypatch):
    Post.objects.create(title="a")
    position = numbered()
    statements = []

    def note(execute, sql, params, many, context):
        statements.append(sql)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(note), monkeypatch.context() as patch:
        if connection.vendor == "sqlite":
            patch.setattr(connections["default"], "transaction_mode", "IMMEDIATE")
        read(posts, {}, COUNT, position)
    assert not connection.in_atomic_block
    assert "BEGIN IMMEDIATE" not in statements
    begin = "BEGIN DEFERRED" if connection.vendor == "sqlite" else "REPEATABLE READ, READ ONLY"
    assert any(begin in sql for sql in statements)

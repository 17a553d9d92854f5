"""The check of the indexes that orders need: databases read rows by an index that it names."""

import re
import sys
from contextlib import contextmanager

import pytest
from django.core.management import call_command
from django.db import connection, models
from django.db.models import F, Q, Value
from django.db.models.functions import Collate, Lower

from django_cocobase_realtime.checks.indexes import check_indexes
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.filters import orm_order
from django_cocobase_realtime.filters.order import parse_order
from django_cocobase_realtime.filters.orm_order import ordering, steps_after
from django_cocobase_realtime.log.row_order import RowOrder
from tests.app.models import Diner, Everything, Item, Post, Seat, UuidThing
from tests.relations_app.models import Folded, Project
from tests.support.watching import watching

pytestmark = pytest.mark.django_db
POSTGRES = connection.vendor == "postgresql"


def missing(model, *orders, databases=("default",), **options):
    """Return the declarations of the indexes that the check asks for."""
    with watching(model, orders=orders, **options):
        messages = list(check_indexes(databases))
    assert {message.id for message in messages} <= {"cocobase_realtime.W109"}
    return [re.search(r"migrate: (.*) If lists", message.hint)[1] for message in messages]


@contextmanager
def index_of(model, source):
    """Create an index from its declaration, and yield its name."""
    index = eval(source, {"models": models, "F": F, "Collate": Collate})
    execute(str(index.create_sql(model, connection.schema_editor())))
    model._meta.indexes.append(index)
    try:
        yield index.name
    finally:
        model._meta.indexes.remove(index)
        execute(f"DROP INDEX {index.name}")


def execute(*statements):
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)


def plan(rows):
    """Return how the database reads the first rows, if it can avoid a sort."""
    if not POSTGRES:
        return rows[:50].explain()
    switches = ("seqscan", "sort", "incremental_sort", "bitmapscan")
    execute(*(f"SET enable_{name} = off" for name in switches))
    try:
        return rows[:50].explain()
    finally:
        execute(*(f"RESET enable_{name}" for name in switches))


def sorts(plan):
    return "Sort" in plan or "TEMP B-TREE" in plan


def fill():
    project = Project.objects.create(name="p")
    Post.objects.bulk_create(
        Post(title=f"{n % 97}", views=n % 89, rating=n % 83 if n % 3 else None) for n in range(1000)
    )
    Folded.objects.bulk_create(Folded(name=f"{n % 97}", project=project) for n in range(1000))
    if POSTGRES:
        execute("SET CONSTRAINTS ALL IMMEDIATE")
    execute("ANALYZE")


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (Post, "views"),
        (Post, "-views"),
        (Post, "-views,created_at"),
        (Post, "rating"),
        (Post, "-rating"),
        (Post, "-rating,title,-views"),
        (Post, "-title"),
        (Post, "author,-views"),
        (Folded, "name"),
        (Folded, "-name,project"),
    ],
)
def test_database_reads_the_first_rows_and_pages_by_the_index(model, text):
    fill()
    (source,) = missing(model, text)
    with index_of(model, source) as name:
        assert missing(model, text) == []
        with watching(model):
            collection = registry.get(model._meta.model_name)
            order = parse_order(text, collection.schema, collection.sortable)
            values = [
                RowOrder(collection, order).values(collection.codec.image(row))
                for row in model.objects.filter(pk__gt=0).values(*collection.codec.attnames)[:8:7]
            ]
        rows = model.objects.order_by(*ordering(model, order, "default"))
        assert name in plan(rows)
        assert not sorts(plan(rows)), plan(rows)
        for after in values:
            for step in steps_after(model, order, "default", after):
                steps = plan(rows.filter(step))
                assert name in steps, step
                assert not sorts(steps), steps
                assert "Filter" not in steps, steps
    # SQLite explains a statement again as it did before
    assert not POSTGRES or sorts(plan(rows))


def test_key_and_unique_values_need_no_further_index():
    with watching(Post):
        order = parse_order("id,title", registry.get("post").schema, frozenset({"id", "title"}))
    assert [column.field.name for column in orm_order.sort_columns(Post, order, "default")] == [
        "id"
    ]
    assert missing(Post, "id", "-id", "id,title") == []
    assert missing(Item, "name", "-name,size") == []
    assert missing(UuidThing, "name", "id") == []
    assert missing(Seat, "event", "event,number", "-event,-number") == []
    assert missing(Seat, "event,-number") == [
        'models.Index(fields=["event", "-number"], name="seat_event_number")'
    ]


@pytest.mark.parametrize(
    ("index", "served"),
    [
        (models.Index(fields=["views", "-title", "id"]), True),
        (models.Index(fields=["-views", "title", "-id", "status"]), True),
        (models.Index(F("views"), F("title").desc(), "id", name="x"), True),
        (models.Index(fields=["views", "-title"]), not POSTGRES),  # SQLite's have the key
        (models.Index(fields=["-views", "title"]), False),
        (models.Index(fields=["views", "title", "id"]), False),
        (models.Index(fields=["status", "views", "-title", "id"]), False),
        (models.Index(fields=["views"]), False),
        (models.Index(fields=["views", "-title", "id"], condition=Q(views=1), name="x"), False),
        (models.Index(F("views"), Lower("title").desc(), "id", name="x"), False),
        (models.Index(F("views"), Value(1), "id", name="x"), False),
        (models.Index(F("views"), F("author__name").desc(), "id", name="x"), False),
        (models.Index("views", Collate("title", "x").desc(), "id", name="x"), False),
        (models.UniqueConstraint("views", F("title").desc(), "id", name="x"), True),
        (models.UniqueConstraint(fields=["views", "title", "id"], name="x"), False),
    ],
)
def test_indexes_that_serve_an_order(index, served, monkeypatch):
    option = "indexes" if isinstance(index, models.Index) else "constraints"
    monkeypatch.setattr(Post._meta, option, [index])
    source = 'models.Index(fields=["views", "-title", "id"], name="post_views_title_id")'
    for databases in ((), ("default",)):
        missing_one = missing(Post, "views,-title", databases=databases)
        assert missing_one == ([] if served else [source])


def test_indexes_that_begin_with_filters_serve_an_order(monkeypatch):
    monkeypatch.setattr(
        Post._meta, "indexes", [models.Index(fields=["status", "-author", "views", "id"], name="x")]
    )
    options = {"fields": ["status", "author", "views"], "order_fields": ["views"]}
    for filters in (["status", "author"], ["author", "status", "views"]):
        assert missing(Post, "views", filters=filters, **options) == []
    for filters in (None, [], ["status"], ["author"]):
        assert len(missing(Post, "views", filters=filters, **options)) == 1
    options |= {"filters": ["status"]}
    assert missing(Post, "views", permission_fields=["author"], **options) == []
    assert missing(Post, "views", project_field="author", **options) == []


@pytest.mark.skipif(not POSTGRES, reason="PostgreSQL")
def test_index_that_has_no_order_or_another_one_of_nulls_serves_none(monkeypatch):
    from django.contrib.postgres.indexes import BrinIndex, BTreeIndex

    (source,) = missing(Post, "-rating")
    assert source == (
        'models.Index(F("rating").desc(nulls_last=True), F("id").asc(), name="post_rating_id")'
    )
    for index, is_missing in (
        (BTreeIndex(F("rating").desc(), F("id"), name="x"), True),
        (BTreeIndex(F("rating").desc(nulls_last=True), F("id"), name="x"), False),
        (BTreeIndex(F("rating").asc(nulls_first=True), F("id").desc(), name="x"), False),
        (BTreeIndex(F("rating").asc(nulls_first=True), F("id"), name="x"), True),
    ):
        monkeypatch.setattr(Post._meta, "indexes", [index])
        assert bool(missing(Post, "-rating")) is is_missing
    for type, is_missing in ((BrinIndex, True), (BTreeIndex, False)):
        monkeypatch.setattr(Post._meta, "indexes", [type(fields=["views", "id"], name="x")])
        assert bool(missing(Post, "views")) is is_missing


def test_order_over_several_tables_has_no_index():
    with watching(Diner, orders=["name"]):
        (message,) = check_indexes(["default"])
    assert "tables of several models" in message.msg
    assert missing(Diner, "neon") == [
        'models.Index(fields=["neon", "restaurant_ptr"], name="diner_neon_restaurant_ptr")'
    ]


def test_tables_that_do_not_exist_are_not_checked(monkeypatch):
    monkeypatch.setattr(Post._meta, "db_table", "missing")
    assert missing(Post, "views") == []
    assert len(missing(Post, "views", databases=())) == 1


@pytest.mark.parametrize(
    ("model", "text"),
    [(Post, "-rating,title"), (Post, "views,author"), (Post, "-title"), (Everything, "-double")],
)
def test_index_is_the_same_if_the_database_may_not_be_queried(
    model, text, django_assert_num_queries
):
    (source,) = missing(model, text)
    with django_assert_num_queries(0):
        assert missing(model, text, databases=()) == [source]


def test_check_command_names_the_index(monkeypatch, capsys):
    for command in ("check", "migrate"):
        monkeypatch.setattr(sys, "argv", ["manage.py", command])
        with watching(Post, orders=["views"]):
            call_command("check")
        assert ("post_views_id" in capsys.readouterr().err) is (command == "check")


@contextmanager
def collation(table, column, name):
    execute(f'ALTER TABLE {table} ALTER COLUMN {column} TYPE text COLLATE "{name}"')
    orm_order._read_properties.cache_clear()
    try:
        yield
    finally:
        execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE text")
        orm_order._read_properties.cache_clear()


@pytest.mark.skipif(not POSTGRES, reason="PostgreSQL")
def test_collation_is_named_only_if_the_column_does_not_compare_by_code_points():
    for name, is_named in (("C", False), ("unicode", True), ("ucs_basic", False), ("POSIX", False)):
        with collation("app_post", "body", name), watching(Post):
            (source,) = missing(Post, "body")
            assert ('Collate("body", "C").asc()' if is_named else '"body"') in source
            with index_of(Post, source) as index:
                order = parse_order("body", registry.get("post").schema, frozenset({"body"}))
                rows = Post.objects.order_by(*ordering(Post, order, "default"))
                assert index in plan(rows)
                assert not sorts(plan(rows))

"""Rows of a snapshot are measured before they are read, so that few queries read few bytes."""

import json
import random
import sqlite3

import pytest
from django.apps import apps
from django.db import connection
from django.db.models import QuerySet

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.delivery import row_sizes, snapshot
from django_cocobase_realtime.delivery.query import AuthorizedQuery
from django_cocobase_realtime.delivery.row_sizes import row_bytes
from django_cocobase_realtime.delivery.snapshot import DocumentReader, select_keys
from django_cocobase_realtime.delivery.subscription import Subscription, SubscriptionRequest
from django_cocobase_realtime.filters import Filter
from django_cocobase_realtime.filters.order import BY_KEY
from tests.app.models import Patient, Post
from tests.support.as_of import by
from tests.support.queries import recorded_statements
from tests.support.triggers import is_postgres

pytestmark = pytest.mark.django_db(transaction=True)
KIB = 1024
MODELS = list(apps.get_app_config("app").get_models())


def declare(settings, model, **options):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"rows": {"model": model} | options}}
    return registry.get("rows")


class Reading:
    """The documents of a snapshot, and the bytes and rows of each query for rows."""

    def __init__(self, collection, monkeypatch, max_bytes=256 * KIB, order=BY_KEY, limit=1000):
        query = AuthorizedQuery(Filter.everything(), collection.fields)
        subscription = Subscription(None, SubscriptionRequest("s", "rows"), query)
        self.calls, self.parts = [], []
        read_documents = snapshot.read_documents

        def record(*args):
            documents = read_documents(*args)
            self.calls.append([len(json.dumps(d)) for d in documents if d])
            return documents

        with monkeypatch.context() as patch, recorded_statements() as self.statements:
            patch.setattr(snapshot, "read_documents", record)
            selected, self.is_cut = select_keys(collection, subscription, order, limit)
            reader = DocumentReader(collection, subscription, selected)
            while reader.has_more:
                self.parts.append([json.loads(text) for text in reader.read(max_bytes)])

    @property
    def ids(self):
        return [int(document["id"]) for part in self.parts for document in part]


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model._meta.label)
def test_rows_of_every_model_can_be_measured(settings, monkeypatch, model):
    monkeypatch.setattr(row_sizes, "MAX_ROW_BYTES", 1)
    collection = declare(settings, model)
    if size := row_bytes(collection, 1000, is_sorted=False):
        list(QuerySet(model).values_list("pk", size))


@pytest.mark.skipif(not is_postgres(), reason="SQLite has no arrays.")
def test_arrays_are_measured(settings):
    from tests.postgres_app.models import Arrays

    with connection.schema_editor() as editor:
        editor.create_model(Arrays)
    try:
        QuerySet(Arrays).create(texts=list(map(str, range(1000))))
        size = row_bytes(declare(settings, Arrays), 1000, is_sorted=False)
        assert 1000 < QuerySet(Arrays).values_list(size, flat=True).get() < 100_000
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(Arrays)


def test_long_values_are_measured(settings):
    text = "ü" * 5000
    Post.objects.create(title="a", body=text, meta={"a": [0] * 5000})
    Post.objects.create(title="b")
    collection = declare(settings, Post)
    size = row_bytes(collection, 1000, is_sorted=False)
    large, small = QuerySet(Post).order_by("title").values_list(size, flat=True)
    assert 0 < small < 500
    # JSON may be compressed, its size is not exact
    assert 10_500 < large < 60_000
    size = row_bytes(declare(settings, Post, fields=["body"]), 1000, is_sorted=False)
    large, small = QuerySet(Post).order_by("title").values_list(size, flat=True)
    assert (large - small, small < 50) == (10_000, True)
    collection = declare(settings, Patient)
    Patient.objects.create(name="a", diagnosis="x" * 3000)
    (size,) = QuerySet(Patient).values_list(row_bytes(collection, 1000, is_sorted=False), flat=True)
    assert size > 3000


@pytest.mark.parametrize("seed", range(4))
def test_queries_read_about_as_many_bytes_as_a_page(settings, monkeypatch, seed):
    chance = random.Random(seed)
    sizes = [0, 10, 300, 2000, 2000, 30_000, 250 * KIB, 400 * KIB, 3_000 * KIB]
    large = chance.randrange(len(sizes))
    bodies = ["x" * sizes[chance.randrange(large + 1)] for _ in range(chance.choice([40, 150]))]
    posts = Post.objects.bulk_create(Post(title="t", body=body) for body in bodies)
    collection = declare(settings, Post, fields=["title", "body"])
    reading = Reading(collection, monkeypatch)
    assert reading.ids == [post.pk for post in posts]
    for call in reading.calls:
        # the last row is the one with which they exceed the page
        assert sum(call[:-1]) <= 300 * KIB
    assert len(reading.calls) <= 2 * len(reading.parts)


def test_documents_that_are_smaller_than_their_rows(settings, monkeypatch):
    """They are read by few queries, none of which reads many bytes."""
    body = "x" * 10 * KIB
    posts = Post.objects.bulk_create(Post(title=str(n), body=body) for n in range(600))
    collection = declare(
        settings, Post, serializer=f"{__name__}.title_of", queryset=f"{__name__}.unchanged"
    )
    reading = Reading(collection, monkeypatch)
    assert reading.ids == [post.pk for post in posts]
    assert max(map(len, reading.calls)) <= row_sizes.MAX_ROW_BYTES / (10 * KIB) + 1
    assert len(reading.calls) <= 8


def title_of(post):
    return {"title": post.title}


def unchanged(posts):
    return posts


def test_documents_that_are_larger_than_their_rows(settings, monkeypatch):
    posts = Post.objects.bulk_create(Post(title=str(n)) for n in range(200))
    collection = declare(
        settings, Post, serializer=f"{__name__}.large_document", queryset=f"{__name__}.unchanged"
    )
    reading = Reading(collection, monkeypatch)
    assert reading.ids == [post.pk for post in posts]
    # all at first, and then as many as a page has
    assert max(map(len, reading.calls[1:])) < 20


def large_document(post):
    return {"text": "x" * 20 * KIB}


def test_serializer_that_may_read_for_each_row_is_given_few(settings, monkeypatch):
    """A call keeps a worker thread from others."""
    Post.objects.bulk_create(Post(title=str(n)) for n in range(450))
    collection = declare(settings, Post, serializer=f"{__name__}.title_of")
    assert [len(part) for part in Reading(collection, monkeypatch).parts] == [200, 200, 50]


@pytest.mark.parametrize("order", [BY_KEY, by("-title")], ids=str)
@pytest.mark.parametrize("limit", [70, 1000, 2000])
def test_order_and_limit(settings, monkeypatch, order, limit):
    posts = Post.objects.bulk_create(
        Post(title=f"{n % 700:04}", body="x" * (n % 50)) for n in range(1100)
    )
    expected = [post.pk for post in posts]
    if order != BY_KEY:
        by_title = sorted(posts, key=lambda post: (post.title, -post.pk), reverse=True)
        expected = [post.pk for post in by_title]
    collection = declare(settings, Post, fields=["title", "body"], filters=["title"])
    reading = Reading(collection, monkeypatch, order=order, limit=limit)
    assert (reading.ids, reading.is_cut) == (expected[:limit], limit < 1100)
    is_old = connection.vendor == "sqlite" and sqlite3.sqlite_version_info < (3, 43)
    if not is_old or (limit <= 1000 and order == BY_KEY):
        # that of the keys, and those of up to 500 rows
        assert len(reading.statements) == {70: 2, 1000: 3, 2000: 4}[limit]

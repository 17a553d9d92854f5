"""Orders of rows: the database's, that of `RowOrder`, and a sort of Python's are the same.

``ORDER_ROUNDS`` makes the random histories longer. Their seed is in the message of a failure.
"""

import math
import os
import random
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from ipaddress import ip_address
from uuid import UUID

import pytest
from django.db import connections

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.filters import parse
from django_cocobase_realtime.filters.order import InvalidOrder
from django_cocobase_realtime.log import as_of
from django_cocobase_realtime.log.row_order import RowOrder
from django_cocobase_realtime.log.touched import CannotUndo
from tests.app.models import Author, Diner, Everything, LongKey, Patient, Post, Seat, UuidThing
from tests.support.as_of import by, numbered
from tests.support.watching import watching

pytestmark = pytest.mark.django_db(transaction=True)
ROUNDS = int(os.environ.get("ORDER_ROUNDS", "4"))
POSTGRES = connections["default"].vendor == "postgresql"
NAN = [math.nan] if POSTGRES else []

TEXTS = [
    "",
    "a",
    "B",
    "aa",
    "Z",
    "é",
    "e\u0301",
    "10",
    "9",
    " a",
    "a b",
    "~",
    "\uff5e",
    "\U0001f600",
]
DAY = datetime(2026, 1, 1, tzinfo=UTC)
# fields of each model and their values
VALUES = {
    Everything: {
        "big": [0, 2**53 + 1, 2**53 + 2, -(2**62), 2**62],
        "boolean": [None, False, True],
        "char": TEXTS,
        "date": [None, date(1, 1, 1), date(2026, 1, 1), date(9999, 12, 31)],
        "moment": [None, DAY, DAY + timedelta(microseconds=1), DAY - timedelta(hours=9)],
        "decimal": [None, Decimal(0), Decimal("9.5"), Decimal("10.0001"), Decimal("-99999999.5")],
        "float": [None, 0.1, -1e300, math.inf, -math.inf, *NAN],
        "ip": [None, "9.0.0.1", "10.0.0.1", "::1", "::ffff:1.2.3.4", "2001:db8::1"],
        "integer": [None, 2, 10, -3],  # the generated field `double` follows it
        "positive": [None, 0, 2**40],
        "slug": ["", "a", "b-a", "A_"],
        "text": [*TEXTS, "long" * 500],
        "time": [None, time_of_day(0), time_of_day(9, 30), time_of_day(9, 30, 0, 5)],
        "uuid": [None, UUID(int=1), UUID(int=2**127), UUID(int=2**64)],
    },
    Post: {"title": TEXTS, "views": [0, 1], "author": [None, 1, 2, 10], "status": ["a", "b"]},
    UuidThing: {"name": []},
    LongKey: {"path": [], "size": [0, 1]},
    Seat: {"event": [], "number": [], "holder": ["", "ada", "Bob"]},
    Diner: {"name": ["x", "y"], "stars": [1, 2], "neon": [False, True]},
}


def create(model, chance):
    values = {name: chance.choice(some) for name, some in VALUES[model].items() if some}
    if model is UuidThing:
        values = {"pk": UUID(int=chance.getrandbits(128)), "name": str(chance.random())}
    if model is LongKey:
        values["path"] = chance.choice(TEXTS) + str(chance.randrange(30))
    if model is Seat:
        values |= {"event": chance.choice(TEXTS), "number": chance.randrange(30)}
    if model is Post:
        values["author_id"] = values.pop("author")
    model(**values).save()


def place(row, name):
    """Return a value of a row in a form that Python compares as the databases do."""
    value = getattr(row, row._meta.get_field(name).attname)
    if value is None:
        return (0,)
    if isinstance(value, float) and math.isnan(value):
        return (2,)
    if name == "ip" and POSTGRES:
        address = ip_address(value)
        return (1, address.version, int(address))
    return (1, value)


def in_order(rows, names):
    """Return primary keys in an order that is calculated by Python alone."""
    model = type(rows[0])
    for name in reversed([*names, *(field.name for field in model._meta.pk_fields)]):
        rows = sorted(
            rows,
            key=lambda row: place(row, name.removeprefix("-")),
            reverse=name.startswith("-"),
        )
    return [row.pk for row in rows]


def random_order(model, chance):
    names = [*VALUES[model]]
    if model is Everything:
        names += ["double", "id"]
    names = chance.sample(names, chance.choice([0, 1, 1, 2, 3]) if len(names) > 2 else 1)
    return [chance.choice(["", "-"]) + name for name in names]


@contextmanager
def rows_of(model, chance):
    """Create random rows, and yield the collection and the rows."""
    with watching(model):
        for author in (1, 2, 10):
            Author.objects.create(pk=author, name="x")
        for _ in range(40):
            create(model, chance)
        yield registry.get(model._meta.model_name), list(model.objects.all())


def read_pages(collection, order, position, size):
    """Return all keys, page by page, each behind the last row of the one before."""
    row_order, everything = RowOrder(collection, order), parse({}, collection.schema)
    keys, after = [], None
    while True:
        page = as_of.keys_as_of(
            collection, everything, position, limit=size, order=order, after=after
        )
        keys += page.keys
        assert len(keys) <= 100, "pages do not end"
        if not page.is_cut:
            return keys
        images = as_of.images_as_of(collection, page.keys[-1:], position)
        (image,) = images.values()
        after = row_order.values(image)


@pytest.mark.parametrize("model", VALUES, ids=[model.__name__ for model in VALUES])
def test_pages_are_those_of_a_sort_by_python(model):
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    with rows_of(model, chance) as (collection, rows):
        images = {
            id: collection.codec.decode(image, "default")
            for id, image in as_of.images_as_of(collection, [row.pk for row in rows], None).items()
        }
        for _ in range(ROUNDS):
            names = random_order(model, chance)
            order, expected = by(*names), in_order(rows, names)
            row_order = RowOrder(collection, order)
            places = {id: row_order.place(image) for id, image in images.items()}
            ids = list(map(collection.codec.document_id, expected))
            assert sorted(ids, key=places.__getitem__) == ids, (seed, names)
            size = chance.choice([3, 17, 100])
            assert read_pages(collection, order, None, size) == expected, (seed, names, size)


@pytest.mark.parametrize("model", VALUES, ids=[model.__name__ for model in VALUES])
def test_pages_as_of_a_position_are_those_before_the_changes(model):
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    with rows_of(model, chance) as (collection, rows):
        position = numbered(model._meta.model_name)
        for row in chance.sample(rows, 12):
            if chance.random() < 0.5:
                row.delete()
            else:
                for name, values in VALUES[model].items():
                    if values:
                        field = model._meta.get_field(name)
                        setattr(row, field.attname, chance.choice(values))
                row.save()
        for _ in range(5):
            create(model, chance)
        rows = rows_before(collection, position)
        for _ in range(ROUNDS):
            names = random_order(model, chance)
            size = chance.choice([5, 13, 100])
            keys = read_pages(collection, by(*names), position, size)
            assert keys == in_order(rows, names), (seed, names, size)


def rows_before(collection, position):
    """Return the rows as they were at a position, from their images."""
    everything = parse({}, collection.schema)
    keys = as_of.keys_as_of(collection, everything, position, limit=1000).keys
    images = as_of.images_as_of(collection, keys, position)
    model = collection.concrete_model
    return [collection.codec.to_instance(model, image, "default") for image in images.values()]


def test_page_begins_behind_a_row_that_is_deleted_or_changed():
    with watching(Post):
        collection = registry.get("post")
        rows = [Post.objects.create(title=str(n), views=n) for n in range(6)]
        order = by("-views")
        (image,) = as_of.images_as_of(collection, [rows[3].pk], None).values()
        after = RowOrder(collection, order).values(image)
        position = numbered()
        Post.objects.filter(pk__in=[rows[2].pk, rows[5].pk]).update(views=9)
        rows[3].delete()
        for at, titles in ((None, ["1", "0"]), (position, ["2", "1", "0"])):
            keys = as_of.keys_as_of(
                collection, parse({}, collection.schema), at, limit=5, order=order, after=after
            ).keys
            assert [str(rows.index(next(r for r in rows if r.pk == key))) for key in keys] == titles


@pytest.mark.parametrize("is_former", [False, True])
def test_row_that_moves_while_a_page_is_read_is_in_it_once(is_former, monkeypatch):
    """A page takes several statements, between which a row may move from one to the next."""
    with watching(Post):
        collection = registry.get("post")
        rows = [Post.objects.create(title=str(n), views=n // 2) for n in range(3)]
        matching, everything = as_of._matching, parse({}, collection.schema)

        class Moving:
            def __init__(self, queryset):
                self._queryset = queryset

            def values_list(self, *columns):
                Post.objects.filter(pk=rows[1].pk).update(views=5)
                return self._queryset.values_list(*columns)

        def moving(*args):
            first, second = matching(*args)
            return [first, Moving(second)]

        monkeypatch.setattr(as_of, "_matching", moving)
        position = numbered() if is_former else None
        read = {"limit": 5, "order": by("views"), "after": (0, str(rows[0].pk))}
        keys = as_of.keys_as_of(collection, everything, position, **read).keys
        assert keys == [rows[n].pk for n in ((1, 2) if is_former else (2, 1))]


@pytest.mark.parametrize("name", ["diagnosis", "-status"])
def test_order_by_what_only_the_database_knows_is_refused(name):
    with watching(Patient):
        collection = registry.get("patient")
        patients = [Patient.objects.create(name=str(n), diagnosis=f"d{n}") for n in range(3)]
        with pytest.raises(InvalidOrder, match="only the database"):
            RowOrder(collection, by(name))
        everything, position = parse({}, collection.schema), numbered("patient")
        read = {"limit": 5, "order": by(name)}
        assert len(as_of.keys_as_of(collection, everything, position, **read).keys) == 3
        patients[0].delete()
        with pytest.raises(CannotUndo):
            as_of.keys_as_of(collection, everything, position, **read)


def test_value_that_is_not_valid_has_no_place():
    with watching(Post):
        order = RowOrder(registry.get("post"), by("views", "-rating"))
        assert order.place({"views": 1, "rating": "1.50", "id": "7"}) < order.place(
            {"views": 1, "rating": "1.5", "id": "10"}
        )
        assert order.place_of_values([1, None, "7"]) > order.place_of_values([1, "-1", "7"])
        for values in (["x", None, "7"], [1, None], [[], None, "7"], [1, {}, "7"]):
            with pytest.raises(InvalidOrder):
                order.place_of_values(values)

"""Rows as of a position, compared with the log up to it, while threads write and number.

``AS_OF_SECONDS`` makes the random histories longer. Their seed is in the message of a failure.
"""

import os
import random
import threading
import time
from decimal import Decimal
from functools import partial

import pytest
from django.db import OperationalError, connections, transaction

from django_cocobase_realtime.filters import parse
from django_cocobase_realtime.log import as_of
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.log.touched import TooManyTouched, read_touched
from tests.app.models import Post
from tests.support.as_of import by, head, posts_fixture  # noqa: F401 - a fixture
from tests.support.log import read_all

pytestmark = pytest.mark.django_db(transaction=True)
SECONDS = float(os.environ.get("AS_OF_SECONDS", "1.5"))
WRITERS, READERS = 3, 2
# each is compared with the others, too
FILTERS = [
    {},
    {"status": "draft"},
    {"views_gte": 2},
    {"$not": {"rating_gt": "1"}},
    {"$or": [{"title_contains": "B"}, {"views": 0}]},
]
ORDERS = [
    (),
    ("views",),
    ("-rating",),
    ("rating", "-title"),
    ("-title",),
    ("-created_at",),
    ("-status", "views", "-rating"),
]


class Undo(Exception):
    pass


class History:
    """Threads that write rows, and one that numbers the events, for some seconds."""

    def __init__(self, seed):
        self._ends_at = time.monotonic() + SECONDS
        targets = [self._write] * WRITERS + [self._number]
        self._threads = [
            threading.Thread(target=self._run, args=(target, random.Random(f"{seed} {n}")))
            for n, target in enumerate(targets)
        ]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc_info):
        for thread in self._threads:
            thread.join()

    @property
    def is_running(self):
        return time.monotonic() < self._ends_at

    def _run(self, target, chance):
        try:
            while self.is_running:
                target(chance)
        finally:
            connections.close_all()

    def _number(self, chance):
        sequence("default", "post", chance.choice([1, 3, 1000]))
        time.sleep(chance.random() * 0.03)

    def _write(self, chance):
        try:
            with transaction.atomic():
                # SQLite refuses a transaction that reads first and writes later
                Post.objects.filter(pk=0).update(views=0)
                # in one order, so that there is no deadlock
                keys = list(Post.objects.order_by("?").values_list("pk", flat=True)[:3])
                for key in sorted(keys)[: chance.choice([1, 1, 2, 3])]:
                    write_row(chance, key)
                if chance.random() < 0.3:
                    write_new_row(chance)
                if chance.random() < 0.2:
                    time.sleep(chance.random() * 0.01)
                if chance.random() < 0.15:
                    raise Undo
        except (Undo, OperationalError):
            pass  # rolled back
        time.sleep(chance.random() * 0.01)


def values(chance):
    return {
        "title": chance.choice(["a", "B", "ä", "\U0001f600", "\uff5e", ""]),
        "views": chance.randrange(4),
        "rating": chance.choice([None, Decimal(0), Decimal("1.5"), Decimal("-2.25")]),
        "status": chance.choice(["draft", "published"]),
        "project": chance.choice(["default", "default", "default", "deleted"]),
    }


def write_row(chance, key):
    rows = Post.objects.filter(pk=key)
    match chance.randrange(8):
        case 0:
            rows.delete()
        case 1 | 2 | 3:
            rows.update(**values(chance))
            if chance.random() < 0.3:
                rows.update(**values(chance))
        case _:
            name = chance.choice(["title", "views", "rating", "status", "project"])
            rows.update(**{name: values(chance)[name]})


def write_new_row(chance):
    row = Post.objects.create(**values(chance))
    if chance.random() < 0.5:
        write_row(chance, row.pk)


class Reader(threading.Thread):
    """Reads rows as of positions, while others write. ``results`` are pairs of a call and rows."""

    def __init__(self, collection, history, chance):
        super().__init__()
        self._collection, self._history, self._chance = collection, history, chance
        self.results, self.refused, self.errors = [], 0, []

    def run(self):
        try:
            position = None
            while self._history.is_running:
                if position is None or self._chance.random() < 0.7:
                    position = head()
                self._read(position)
        except Exception as error:
            self.errors.append(error)
        finally:
            connections.close_all()

    def _read(self, position):
        chance, schema = self._chance, self._collection.schema
        old, new = (parse(chance.choice(FILTERS), schema) for _ in range(2))
        limit, order = chance.choice([1, 3, 1000]), chance.choice(ORDERS)
        try:
            rows = as_of.rows_as_of(self._collection, new, position, limit=limit, order=by(*order))
            differences = as_of.differences_as_of(self._collection, old, new, position, limit=1000)
        except TooManyTouched:
            self.refused += 1
            return
        self.results.append((position.seq, old, new, limit, order, rows, differences))


def fold(collection, changes):
    """Return what the documents were at each position: images by id."""
    rows, history = {}, {0: {}}
    for change in changes:
        if change.op == "deleted":
            rows.pop(change.document_id)
        else:
            rows[change.document_id] = change.after
        history[change.seq] = dict(rows)
    return history


def in_order(collection, images, order):
    """Return ids in an order that is calculated by Python alone."""
    ids = sorted(images, key=int)
    for name in reversed(order):
        ids.sort(key=partial(place, images, name.removeprefix("-")), reverse=name.startswith("-"))
    return ids


def place(images, name, id):
    value = images[id][name]
    if value is not None:
        value = {"rating": Decimal}.get(name, lambda value: value)(value)
    return (value is not None, value if value is not None else 0)


def is_wrong(collection, images, result):
    _, old, new, limit, order, rows, differences = result
    alive = {id: image for id, image in images.items() if image["project"] != "deleted"}
    of_old, of_new = (
        {id: image for id, image in alive.items() if filter.matches(collection.row(image))}
        for filter in (old, new)
    )
    ids = in_order(collection, of_new, order)
    entered = {change.document_id: change.after for change in differences.entered}
    return (
        [(change.document_id, change.after) for change in rows.documents]
        != [(id, of_new[id]) for id in ids[:limit]]
        or rows.is_cut != (len(ids) > limit)
        or entered != {id: of_new[id] for id in of_new.keys() - of_old.keys()}
        or sorted(differences.left) != sorted(of_old.keys() - of_new.keys())
    )


def test_rows_are_those_of_the_log_up_to_the_position(posts, monkeypatch):
    seed = random.randrange(10**6)
    chance = random.Random(seed)

    def read_slowly(*args, **options):
        # so that others commit between the rows and the log
        time.sleep(chance.random() * 0.004)
        documents = read_touched(*args, **options)
        time.sleep(chance.random() * 0.002)
        return documents

    monkeypatch.setattr(as_of, "read_touched", read_slowly)
    monkeypatch.setattr(as_of, "SPARE_ROWS", 2)
    for _ in range(30):
        Post.objects.create(**values(chance))
    sequence("default", "post")
    with History(seed) as history:
        readers = [Reader(posts, history, random.Random(f"{seed} r{n}")) for n in range(READERS)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert not [error for reader in readers for error in reader.errors]
    truth = fold(posts, read_all("post"))
    results = [result for reader in readers for result in reader.results]
    wrong = [result for result in results if is_wrong(posts, truth[result[0]], result)]
    refused = sum(reader.refused for reader in readers)
    print(f"seed {seed}: {len(wrong)} of {len(results)} wrong, {refused} refused")
    assert not wrong, f"seed {seed}: {len(wrong)} of {len(results)}, such as {wrong[0]}"
    assert len(results) > refused

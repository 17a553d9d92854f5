"""Numbering of more events than one pass numbers: all of them in one order, in bounded passes."""

import random
from itertools import pairwise

import pytest
from django.db import connection

from django_cocobase_realtime.log import postgres_numbering, sequencer
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.models import LogEvent, Stream

pytestmark = pytest.mark.django_db(transaction=True)
PAGE, BATCH = 5, 20


def number_by_the_orm():
    result = sequence("default", "posts", limit=PAGE)
    return result.start, result.head, result.more


def number_by_the_function():
    limits = f"{PAGE}, {postgres_numbering.PAGE_BYTES}, {BATCH}"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT cocobase_realtime_follow(ARRAY['posts'], ARRAY[NULL], ARRAY[NULL::bigint], "
            f"ARRAY[NULL], {limits})"
        )
        rows = postgres_numbering.decode_result(cursor.fetchone()[0])["posts"]
    return rows.start, rows.head, rows.unfinished


WAYS = [number_by_the_orm]
if connection.vendor == "postgresql":
    WAYS.append(number_by_the_function)


def transactions_of(kind):
    """Return the transaction of each event. On SQLite, only one writes at a time."""
    choose = random.Random(kind)
    match kind:
        case "one":
            return ["a"] * 200
        case "short":
            return [str(n // choose.choice((1, 3, 4))) for n in range(200)]
        case "long":  # it begins first, and ends last
            others = [str(n // 3) for n in range(150)]
            for _ in range(50):
                others.insert(choose.randrange(len(others)), "long")
            return ["long", *others, "long"]
    open_names = [str(n) for n in range(4)]
    names = []
    for n in range(200):
        names.append(choose.choice(open_names))
        if choose.random() < 0.3:
            open_names[choose.randrange(4)] = f"{n + 4}"
    return names


def log(names):
    Stream.objects.get_or_create(collection="posts")
    LogEvent.objects.bulk_create(
        LogEvent(collection="posts", transaction_id=name, op="created", document_id=str(n))
        for n, name in enumerate(names)
    )


@pytest.mark.parametrize("number", WAYS)
@pytest.mark.parametrize("kind", ["one", "short", "long", "interleaved", "interleaved again"])
def test_passes_number_in_the_order_of_the_last_events(monkeypatch, number, kind):
    monkeypatch.setattr(sequencer, "BACKLOG_BATCH_SIZE", BATCH)
    names = transactions_of(kind)
    if connection.vendor == "sqlite":
        names = sorted(names, key=list(names).index)
    log(names)
    heads = [0]
    more = True
    while more:
        start, head, more = number()
        assert start == heads[-1]
        heads.append(head)
    last = {name: n for n, name in enumerate(names)}
    expected = sorted(range(len(names)), key=lambda n: (last[names[n]], n))
    events = LogEvent.objects.order_by("seq").values_list("seq", "document_id")
    assert list(events) == [(n + 1, str(id)) for n, id in enumerate(expected)]
    # a pass numbers whole transactions; the last one may find nothing more
    for head in sorted({*heads[1:-1]} - {len(names)}):
        assert names[expected[head - 1]] != names[expected[head]]
    if kind in ("short", "interleaved"):  # several passes, and none is much too long
        assert len(heads) - 1 >= 3
        assert max(b - a for a, b in pairwise(heads)) <= 4 * BATCH + 20


@pytest.mark.parametrize("number", WAYS)
def test_other_streams_and_numbered_events_are_left_alone(monkeypatch, number):
    monkeypatch.setattr(sequencer, "BACKLOG_BATCH_SIZE", BATCH)
    log(["a"] * 3)
    while number()[2]:
        pass
    LogEvent.objects.create(
        collection="items", transaction_id="b", op="created", document_id="other"
    )
    log(["b"] * 30)
    while number()[2]:
        pass
    assert LogEvent.objects.get(collection="items").seq is None
    numbers = LogEvent.objects.filter(collection="posts").order_by("id").values_list("seq")
    assert [n for (n,) in numbers] == list(range(1, 34))

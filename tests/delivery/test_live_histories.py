"""Random histories of live queries: clients have what the log says, after every frame.

Clients subscribe to windows and aggregates, change their limits, read pages, are cut and resume,
while rows and rights change. They keep their results from frames alone. After each complete frame,
a result must be that of the rows of the log up to the frame's cursor, filtered and sorted by Python
alone (see `live_oracle`), and that of SQL once nothing waits.

``LIVE_HISTORIES`` is the number of histories for each way of capture, ``LIVE_STEPS`` that of their
steps, and ``LIVE_SEED`` the first seed.
"""

import contextlib
import os
import random
import threading
import time
from collections import Counter
from functools import partial

import pytest

from django_cocobase_realtime.delivery import live_results, window_query
from django_cocobase_realtime.live_queries.window import SPARE_ROWS, Window
from django_cocobase_realtime.log import as_of
from django_cocobase_realtime.log.reader import read_events
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.log.touched import read_touched
from tests.app.models import Task
from tests.support import tasks
from tests.support.live_history import History
from tests.support.live_oracle import VISIBLE, LogFold, evaluate, read_result
from tests.support.live_play import Play, Queries, describing
from tests.support.threads import call
from tests.support.triggers import installed_triggers

pytestmark = pytest.mark.django_db(transaction=True)

HISTORIES = int(os.environ.get("LIVE_HISTORIES", "2"))
# so that frames of many documents have several parts
EVENT_BYTES = 2000
STEPS = int(os.environ.get("LIVE_STEPS", "20"))
FIRST_SEED = int(os.environ.get("LIVE_SEED", "0"))


@pytest.fixture(params=["signals", "triggers"])
def capture(request, settings):
    settings.COCOBASE_REALTIME = tasks.options(request.param, event_bytes=EVENT_BYTES)
    with installed_triggers() if request.param == "triggers" else contextlib.nullcontext():
        yield request.param


def slow(function, choose, seconds=0.01):
    """Return a function that reads, with pauses in which others commit."""

    def call_slowly(*args, **options):
        time.sleep(choose.random() * seconds)
        result = function(*args, **options)
        time.sleep(choose.random() * seconds)
        return result

    return call_slowly


def test_the_fold_of_the_log_is_the_table(capture):
    history = History(0)
    queries = Queries(random.Random(0), history)
    for _ in range(60):
        history.write()
    for stream in (*VISIBLE, "$related.default"):
        while sequence("default", stream).more:
            pass
    fold = LogFold()
    for query in [queries.any() for _ in range(30)]:
        for user in history.users:
            projects = fold.projects(user.pk, len(fold.members) - 1)
            assert projects == set(user.projects.values_list("pk", flat=True))
            rows = fold.visible(query.collection, -1, user.pk, projects)
            assert evaluate(rows, query) == read_result(query, user)


async def test_results_are_those_of_the_log_at_their_cursors(realtime, capture, monkeypatch):
    counts = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + HISTORIES):
        print(f"seed {seed}")
        monkeypatch.setattr(as_of, "read_touched", slow(read_touched, random.Random(seed)))
        slow_read_events = slow(read_events, random.Random(seed), 0.05)
        monkeypatch.setattr(live_results, "read_events", slow_read_events)
        # so that rows are read often
        spare_rows = (1, 3, SPARE_ROWS)[seed % 3]
        monkeypatch.setattr(as_of, "SPARE_ROWS", spare_rows)
        monkeypatch.setattr(window_query, "Window", partial(Window, spare_rows=spare_rows))
        history = await call(History, seed)
        play = Play(lambda client: realtime(user=client.user, authenticate=False), history)
        try:
            with describing(play, seed):
                await play.run(STEPS)
        finally:
            await play.close_all()
        counts += play.counts
    print(dict(counts))
    assert counts["resumed"] > 0


async def test_change_while_a_client_resumes_is_not_missed(realtime, capture, user, monkeypatch):
    task = await call(lambda: Task.objects.create(title="old"))
    window, delivered = {"limit": 5}, threading.Event()
    async with realtime(user=user) as other:
        await other.subscribe("tasks", window=window)
        await other.receive("window")
        async with realtime(user=user) as client:
            scope = (await client.subscribe("tasks", window=window))["scope"]
            cursor = (await client.receive("window"))["cursor"]

        def read_and_write(*args, **options):
            changes = read_events(*args, **options)
            Task.objects.filter(pk=task.pk).update(title="new")
            assert delivered.wait(20)
            return changes

        monkeypatch.setattr(live_results, "read_events", read_and_write)
        async with realtime(user=user) as client:
            reply = await client.subscribe("tasks", window=window, since=cursor, scope=scope)
            assert reply["resumed"]
            await other.receive("window", timeout=20)
            delivered.set()
            frame = await client.receive("window", timeout=20)
            assert frame["reset"]
            assert [document["data"]["title"] for _, document in frame["insert"]] == ["new"]

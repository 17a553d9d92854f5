"""Many clients subscribe during random writes: what each ends with equals the table."""

import asyncio
import random
from contextlib import AsyncExitStack

import pytest
from asgiref.sync import sync_to_async
from django.db import transaction

from django_cocobase_realtime.delivery import shared_snapshots
from tests.app.models import Post
from tests.support.sockets import open_socket

pytestmark = pytest.mark.django_db(transaction=True)
CLIENTS, SECONDS = 60, 1.5
FILTERS = [({}, lambda views: True), ({"views_gte": 5}, lambda views: views >= 5)]
LIMITS = {"connections_per_user": 1000, "unauthenticated_per_address": 1000}


class Undo(Exception):
    pass


def write(chance):
    """Make one random transaction."""
    try:
        with transaction.atomic():
            # SQLite refuses a transaction that reads first, and writes after others have written
            Post.objects.filter(pk=0).update(views=0)
            for _ in range(chance.choice([1, 1, 1, 3])):
                write_once(chance)
            if chance.random() < 0.2:
                raise Undo
    except Undo:
        pass


def write_once(chance):
    views = chance.randrange(10)
    rows = list(Post.objects.order_by("?")[:3])
    match chance.randrange(5):
        case 0:
            Post.objects.create(title="new", views=views)
        case 1 if rows:
            Post.objects.filter(pk=rows[0].pk).update(views=views)
        case 2 if rows:
            Post.objects.filter(views=rows[0].views).update(views=views)
        case 3:
            Post.objects.bulk_create(Post(title="bulk", views=views) for _ in range(3))
        case 4 if len(rows) == 3:
            Post.objects.filter(pk=rows[0].pk).delete()


class Replica:
    """The views of the rows that a client has, by id; kept up to date by its frames."""

    def __init__(self, socket, filter):
        self.socket, (self.filter, self.matches) = socket, filter

    async def subscribe(self, chance):
        # several at the same moment, so that they share a snapshot however slow the machine is
        await asyncio.sleep(chance.randrange(12) / 12 * SECONDS)
        await self.socket.send_frame(
            type="subscribe",
            collection="posts",
            snapshot=True,
            filters=self.filter,
            transitions=True,
        )

    def rows(self):
        rows = {}
        for frame in self.socket.frames:
            if frame["type"] == "snapshot":
                rows |= {d["id"]: d["data"]["views"] for d in frame["documents"]}
            elif frame["type"] == "event":
                document = frame["document"]
                if frame["event"] in ("left", "deleted"):
                    rows.pop(document["id"], None)
                else:
                    rows[document["id"]] = document["data"]["views"]
        return rows


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("seed", range(3))
async def test_each_client_ends_equal_to_the_table(api_key, settings, monkeypatch, durable, seed):
    chance = random.Random(seed)
    options = {"model": "app.Post", "fields": ["views"], "durable": durable}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": options}, "LIMITS": LIMITS}
    # also long after they have begun, so that it would be noticed if they were outdated
    monkeypatch.setattr(shared_snapshots, "JOIN_SECONDS", 10)
    reads, read_pages = 0, shared_snapshots.read_pages

    def count(*args):
        nonlocal reads
        reads += 1
        return read_pages(*args)

    monkeypatch.setattr(shared_snapshots, "read_pages", count)
    await Post.objects.abulk_create(Post(title="old", views=n % 10) for n in range(30))
    async with AsyncExitStack() as stack:
        replicas = []
        for number in range(CLIENTS):
            socket = await stack.enter_async_context(open_socket(token=api_key))
            replicas.append(Replica(socket, FILTERS[number % 2]))
        subscribing = asyncio.gather(*(replica.subscribe(chance) for replica in replicas))
        while not subscribing.done():
            await sync_to_async(write)(chance)
            await asyncio.sleep(chance.choice([0, 0.01, 0.1]))
        views = {str(pk): n async for pk, n in Post.objects.values_list("pk", "views")}
        for replica in replicas:
            expected = {id: n for id, n in views.items() if replica.matches(n)}
            await replica.socket.wait_until(
                lambda replica=replica, expected=expected: replica.rows() == expected, 10
            )
    assert reads < CLIENTS

"""Four live lists of each client equal the database, under random writes with cuts.

``WRITES=10000`` makes more writes than in CI.
"""

import asyncio
import os
import random
from contextlib import AsyncExitStack

import pytest
from django.db import OperationalError, connection, transaction

from django_cocobase_realtime.filters.orm import ordering
from django_cocobase_realtime.managers import RealtimeQuerySet
from tests.app.models import Post
from tests.clients.drivers import BrowserDriver, NodeDriver
from tests.clients.python_driver import PythonDriver
from tests.clients.scripted_server import ScriptedServer
from tests.clients.test_browser import chromium
from tests.support.forwarder import Forwarder
from tests.support.threads import call

WRITES = int(os.environ.get("WRITES", "500"))
SEED = int(os.environ.get("SEED", "0"))
# number of writes between two comparisons
WRITES_PER_ROUND = 100
# most rows that there are at a time
ROWS = 60
# seconds in which a list must equal the database after a round
TIMEOUT = 30.0

pytestmark = [pytest.mark.server, pytest.mark.timeout(120 + WRITES // 5)]

FIELDS = ["title", "views", "status"]
# by name: the options of a list, and the filter and order of the query that it must equal
LISTS = {
    "published": (
        {"filters": {"status": "published"}, "order": "-views", "fields": FIELDS},
        {"status": "published"},
    ),
    "window": (
        {"filters": {"views_gte": 30}, "order": "title", "limit": 10, "fields": FIELDS},
        {"views__gte": 30},
    ),
    "titles": (
        {"filters": {"title_contains": "a"}, "order": "-views", "limit": 7, "fields": ["title"]},
        {"title__icontains": "a"},
    ),
    "all": ({"transitions": False, "order": "rating", "fields": ["rating", "status"]}, {}),
}


def documents(name):
    """Return the documents of a list, as the database has them."""
    options, condition = LISTS[name]
    rows = Post.objects.filter(**condition).order_by(
        ordering(Post, options["order"], "default"), "pk"
    )
    rows = rows[: options.get("limit")]
    return [
        [str(row.pk), {field: value(row, field) for field in options["fields"]}] for row in rows
    ]


def value(row, field):
    content = getattr(row, field)
    return str(content) if field == "rating" and content is not None else content


def random_values(numbers):
    return {
        "title": numbers.choice(["Ada", "Bob", "bö", "a", "10", "9", ""]),
        "views": numbers.randrange(60),
        "status": numbers.choice(["draft", "published"]),
        "rating": numbers.choice([None, "0.50", "9.25", "10.00", "-1.00"]),
    }


def write(numbers):
    """Make one random write; return how many rows it concerned."""
    posts = list(Post.objects.order_by("pk"))
    kinds = ["create", "create", "save", "save", "save", "delete", "bulk", "update", "clear"]
    kind = numbers.choice(kinds if len(posts) < ROWS else ["delete", "clear"])
    if kind == "create" or not posts:
        Post.objects.create(**random_values(numbers))
        return 1
    some = numbers.sample(posts, min(len(posts), numbers.randint(1, 5)))
    keys = [post.pk for post in some]
    queryset = RealtimeQuerySet(Post)
    match kind:
        case "save":
            for name, new in random_values(numbers).items():
                if numbers.random() < 0.6:
                    setattr(some[0], name, new)
            some[0].save()
            return 1
        case "delete":
            some[0].delete()
            return 1
        case "bulk":
            queryset.bulk_create([Post(**random_values(numbers)) for _ in some])
        case "update":
            queryset.filter(pk__in=keys).update(**random_values(numbers))
        case "clear":
            queryset.filter(pk__in=keys).delete()
    return len(some)


def write_several(numbers):
    """Make a few writes, some of them in one transaction."""
    try:
        if numbers.random() < 0.3:
            with transaction.atomic():
                return sum(write(numbers) for _ in range(3))
        return write(numbers)
    except OperationalError:
        # SQLite cannot write in a transaction that has read, if another process has written since
        if connection.vendor != "sqlite":
            raise
        return 0


async def open_client(stack, name, monkeypatch):
    if name == "python":
        return await stack.enter_async_context(PythonDriver(monkeypatch))
    if name == "javascript":
        return await stack.enter_async_context(NodeDriver())
    files = await stack.enter_async_context(ScriptedServer())
    browser = await stack.enter_async_context(chromium())
    page = await browser.new_page()
    await page.goto(f"http://127.0.0.1:{files.port}/")
    return await stack.enter_async_context(BrowserDriver(page))


async def compare(clients):
    """Wait until all lists of all clients equal the database."""
    for name in LISTS:
        expected = await call(documents, name)
        for client in clients:
            shown = None
            for _ in range(int(TIMEOUT / 0.05)):
                await client.do("show", name)
                shown = (await client.wait_for(name, "shown"))["documents"]
                if shown == expected:
                    break
                await asyncio.sleep(0.05)
            assert shown == expected, f"{name} of {client}"


@pytest.mark.parametrize(
    "names",
    [("python", "javascript"), pytest.param(("chromium",), marks=pytest.mark.browser)],
    ids="-".join,
)
async def test_lists_equal_database_under_random_writes_with_cuts(
    serve, api_key, names, monkeypatch
):
    limits = {"connections_per_address": 100_000, "unauthenticated_per_address": 1000}
    server = await asyncio.to_thread(lambda: serve("uvicorn", settings={"LIMITS": limits}))
    numbers = random.Random(SEED)
    print(f"SEED={SEED}")
    clients, forwarders = [], []
    async with AsyncExitStack() as stack:
        for name in names:
            forwarder = await stack.enter_async_context(Forwarder(server.port))
            client = await open_client(stack, name, monkeypatch)
            await client.do("create", url=forwarder.url, tokens=api_key)
            for id, (options, _) in LISTS.items():
                await client.do("list", id, collection="posts", options=options)
            clients.append(client)
            forwarders.append(forwarder)
        count = rounds = 0
        while count < WRITES:
            count += await call(write_several, numbers)
            if numbers.random() < 0.05:
                await asyncio.sleep(numbers.choice([0.0, 0.02, 0.1]))
                numbers.choice(forwarders).cut()
            if count // WRITES_PER_ROUND > rounds:
                rounds = count // WRITES_PER_ROUND
                await compare(clients)
        await compare(clients)

"""Live lists and counts of each client equal the database, under random writes with cuts.

``WRITES=10000`` makes more writes than in CI.
"""

import asyncio
import os
import random
from contextlib import AsyncExitStack
from decimal import Decimal

import pytest
from django.db import OperationalError, connection, transaction

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
# seconds in which a list or a count must equal the database after a round
TIMEOUT = 30.0

pytestmark = [pytest.mark.server, pytest.mark.timeout(120 + WRITES // 5)]

# lists by name: their first options, and the filter of the query that they must equal
LISTS = {
    "all": ({"fields": ["rating", "status"]}, {}),
    "published": (
        {"filters": {"status": "published"}, "fields": ["title", "views", "status"]},
        {"status": "published"},
    ),
    "window": (
        {"filters": {"views_gte": 30}, "order": "title,-views", "limit": 10, "fields": ["views"]},
        {"views__gte": 30},
    ),
    "titles": (
        {"filters": {"title_contains": "a"}, "order": "-views", "limit": 7, "fields": ["title"]},
        {"title__icontains": "a"},
    ),
    "ratings": ({"order": ["rating", "-status"], "fields": ["rating"]}, {}),
}
# orders that the list `window` has in turn
ORDERS = ["-title", ["-rating", "title"], "views", "title,-views"]
# the same of counts
COUNTS = {
    "total": ({"filters": {"views_gte": 30}}, {"views__gte": 30}),
    "statuses": (
        {"group_by": "status", "sum": ["views", "rating"], "avg": "rating", "max": "views"},
        {},
    ),
    "titles and statuses": ({"group_by": ["title", "status"], "min": ["rating"]}, {}),
}


class Place:
    """A value to sort by: null is lowest, and texts are compared by code points."""

    def __init__(self, value, is_descending):
        self.key = (value is not None, value)
        self.is_descending = is_descending

    def __eq__(self, other):
        return self.key == other.key

    def __lt__(self, other):
        if self.key == other.key or None in (self.key[1], other.key[1]):
            return (self.key[0] < other.key[0]) != self.is_descending and self.key != other.key
        return (self.key[1] < other.key[1]) != self.is_descending


def place(row, order):
    names = order.split(",") if isinstance(order, str) else order
    values = (Place(getattr(row, name.lstrip("-")), name.startswith("-")) for name in names)
    return (*values, row.pk)


def expected_list(options, condition):
    """Return what a list with these options shows, as the database has it."""
    rows = sorted(
        Post.objects.filter(**condition), key=lambda row: place(row, options.get("order") or [])
    )
    documents = [
        [str(row.pk), {field: value(row, field) for field in options["fields"]}] for row in rows
    ]
    limit = options.get("limit", len(documents))
    return documents[:limit], len(documents) > limit


def expected_count(options, condition):
    """Return the groups that a count with these options shows, by their keys."""
    keys = options.get("group_by", [])
    keys = [keys] if isinstance(keys, str) else keys
    groups = {} if keys else {(): []}
    for row in Post.objects.filter(**condition):
        groups.setdefault(tuple(getattr(row, key) for key in keys), []).append(row)
    return {key: (len(rows), aggregates(options, rows)) for key, rows in groups.items()}


def aggregates(options, rows):
    results = {}
    for kind, function in (("sum", sum), ("avg", mean), ("min", min), ("max", max)):
        names = options.get(kind, [])
        for name in [names] if isinstance(names, str) else names:
            values = [getattr(row, name) for row in rows if getattr(row, name) is not None]
            results[kind, name] = function(values) if values else None
    return results


def mean(values):
    return float(sum(values)) / len(values)


def shown_count(report):
    """Return the groups that a client shows in the form of `expected_count`."""
    groups = {}
    for group in report["groups"]:
        values = {
            (kind, name): Decimal(result) if isinstance(result, str) else result
            for kind in ("sum", "avg", "min", "max")
            for name, result in group.get(kind, {}).items()
        }
        groups[tuple(group.get("key", {}).values())] = (group["count"], values)
    return groups


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


async def wait_until_equal(client, name, read, expected):
    """Wait until what a client shows equals what the database has."""
    shown = None
    for _ in range(int(TIMEOUT / 0.05)):
        await client.do("show", name)
        shown = read(await client.wait_for(name, "shown"))
        if shown == expected:
            return
        await asyncio.sleep(0.05)
    assert shown == expected, f"{name} of {client}"


async def compare(clients, options):
    """Wait until all lists and counts of all clients equal the database."""
    for name, (_, condition) in LISTS.items():
        expected, more = await call(expected_list, options[name], condition)
        is_sorted = "order" in options[name]

        def read(report, is_sorted=is_sorted):
            documents = report["documents"]
            if not is_sorted:
                documents = sorted(documents, key=lambda document: int(document[0]))
            return documents, report["has_more"]

        for client in clients:
            await wait_until_equal(client, name, read, (expected, more))
    for name, (wanted, condition) in COUNTS.items():
        expected = await call(expected_count, wanted, condition)
        total = sum(count for count, _ in expected.values())
        for client in clients:
            read = lambda report: (report["value"], shown_count(report))  # noqa: E731
            await wait_until_equal(client, name, read, (total, expected))


async def change_lists(clients, options, rounds):
    """Show more of one list, and sort another one in another way."""
    options["titles"]["limit"] += 2
    options["window"]["order"] = ORDERS[rounds % len(ORDERS)]
    for client in clients:
        await client.do("more", "titles", n=2)
        await client.do("update", "window", options={"order": options["window"]["order"]})


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
            for id, (first, _) in LISTS.items():
                await client.do("list", id, collection="posts", options=first)
            for id, (first, _) in COUNTS.items():
                await client.do("counts", id, collection="posts", options=first)
            clients.append(client)
            forwarders.append(forwarder)
        options = {name: dict(first) for name, (first, _) in LISTS.items()}
        count = rounds = 0
        while count < WRITES:
            count += await call(write_several, numbers)
            if numbers.random() < 0.05:
                await asyncio.sleep(numbers.choice([0.0, 0.02, 0.1]))
                numbers.choice(forwarders).cut()
            if count // WRITES_PER_ROUND > rounds:
                rounds = count // WRITES_PER_ROUND
                await compare(clients, options)
                await change_lists(clients, options, rounds)
        await compare(clients, options)

"""New events are announced by PostgreSQL, or through the channel layer if that is impossible.

Servers look for events that were not announced once in 30 seconds, so the tests would time out.
"""

import asyncio
import contextlib
import sys

import pytest
from django.db import connection

from django_cocobase_realtime.checks import check_database
from django_cocobase_realtime.pubsub.listener import APPLICATION_NAME
from django_cocobase_realtime.pubsub.notifications import LISTENER_LOCK
from tests.app.models import Post
from tests.e2e.test_pgbouncer import pooled  # noqa: F401 - a fixture
from tests.support.client import connect
from tests.support.servers import SERVERS
from tests.support.threads import call

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="Needs PostgreSQL."),
]
OPTIONS = {"LOG": {"POLL": 30}}
COUNT_LISTENERS = (
    f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{APPLICATION_NAME}' "
    "AND datname = current_database()"
)
# one of them has this lock, by which processes that save know that there are any
COUNT_LOCKS = (
    "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted AND database = "
    "(SELECT oid FROM pg_database WHERE datname = current_database()) "
    f"AND (classid::bigint << 32) | objid::bigint = {LISTENER_LOCK}"
)


def create(title):
    Post.objects.create(title=title)


def execute(statement):
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchone()[0]


async def receive_titles(client, count):
    return [(await client.receive("event"))["document"]["data"]["title"] for _ in range(count)]


@contextlib.asynccontextmanager
async def subscribed(api_key, *servers):
    """Yield a subscribed client of each server, when all of them listen."""
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for server in servers:
            client = await stack.enter_async_context(connect(server.socket_url, api_key))
            await client.subscribe("posts")
            clients.append(client)
        yield clients


async def wait_for_listeners(count):
    async with asyncio.timeout(10):
        while await call(execute, COUNT_LISTENERS) != count or not await call(execute, COUNT_LOCKS):
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("kind", SERVERS)
async def test_changes_reach_all_servers_without_redis(serve, api_key, kind):
    one, two = [await call(lambda: serve(kind, settings=OPTIONS)) for _ in range(2)]
    async with subscribed(api_key, one, two) as clients:
        await wait_for_listeners(2)
        await call(create, "from a writer without sockets")
        for client in clients:
            assert await receive_titles(client, 1) == ["from a writer without sockets"]
        await call(one.post, "/posts", [{"title": "from one"}])
        await call(two.post, "/posts", [{"title": "from two"}])
        for client in clients:
            assert await receive_titles(client, 2) == ["from one", "from two"]
        for n in range(50):
            await call(create, f"{n}")
        for client in clients:
            assert await receive_titles(client, 50) == [f"{n}" for n in range(50)]
            assert await client.receive_nothing()
    for server in (one, two):
        assert "Traceback" not in server.log.read_text()


async def test_changes_arrive_while_listeners_are_terminated(serve, api_key):
    one, two = [await call(lambda: serve("uvicorn", settings=OPTIONS)) for _ in range(2)]
    terminate = COUNT_LISTENERS.replace("*", "pg_terminate_backend(pid)")
    async with subscribed(api_key, one, two) as clients:
        await wait_for_listeners(2)
        for n in range(30):
            if n % 10 == 5:
                await call(execute, terminate)
            await call(create, f"{n}")
            await asyncio.sleep(0.02)
        for client in clients:
            assert await receive_titles(client, 30) == [f"{n}" for n in range(30)]
            assert await client.receive_nothing()


async def test_redis_is_not_used_for_announcements_between_servers_that_listen(
    serve, api_key, redis, settings, monkeypatch
):
    settings.CHANNEL_LAYERS = redis.layer("pubsub")
    server = await call(lambda: serve("uvicorn", settings=OPTIONS, layers=redis.layer("pubsub")))
    from django_cocobase_realtime.pubsub import notifications
    from django_cocobase_realtime.pubsub.broker import broker

    # a save of another test may have found no listener, less than a second ago
    monkeypatch.setattr(notifications, "_unanswered_until", {})
    monkeypatch.setattr(broker, "publish", lambda event: pytest.fail(f"{event}"))
    async with subscribed(api_key, server) as (client,):
        await wait_for_listeners(1)
        await call(create, "a")
        assert await receive_titles(client, 1) == ["a"]


async def test_channel_layer_is_used_behind_pgbouncer(
    pooled,  # noqa: F811
    serve,
    api_key,
    redis,
    settings,
):
    settings.CHANNEL_LAYERS = layers = redis.layer("pubsub")
    server = await call(lambda: serve("uvicorn", settings=OPTIONS, layers=layers))
    async with subscribed(api_key, server) as (client,):
        await call(create, "before the test of the connection has ended")
        assert len(await receive_titles(client, 1)) == 1
        await asyncio.sleep(3)
        for n in range(10):
            await call(create, f"{n}")
            assert await receive_titles(client, 1) == [f"{n}"]
    assert "Traceback" not in server.log.read_text()


@pytest.fixture
def direct_server(serve):
    """A server that was started before the settings name PgBouncer."""
    return serve("uvicorn", settings=OPTIONS)


async def test_writer_behind_pgbouncer_notifies_server_with_a_connection_of_its_own(
    direct_server,
    api_key,
    pooled,  # noqa: F811
):
    async with subscribed(api_key, direct_server) as (client,):
        await asyncio.sleep(1)
        await call(create, "a")
        assert await receive_titles(client, 1) == ["a"]


def test_check_reports_pgbouncer(pooled, monkeypatch):  # noqa: F811
    monkeypatch.setattr(sys, "argv", ["manage.py", "check"])
    announced, numbered = check_database(databases=["default"])
    assert announced.id == "cocobase_realtime.I084"
    assert "do not pass its pooler" in announced.msg
    assert numbered.id == "cocobase_realtime.I085"
    assert "its pooler gives each transaction another connection" in numbered.msg

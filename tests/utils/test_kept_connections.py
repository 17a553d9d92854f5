"""Database connections that worker threads keep open between calls, while a hub runs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections, transaction
from django.db.utils import OperationalError

from django_cocobase_realtime.testing import connect
from django_cocobase_realtime.utils import concurrency, kept_connections
from django_cocobase_realtime.utils.concurrency import (
    run_in_threadpool,
    stop_keeping_connections,
)
from tests.support.threads import call

pytestmark = pytest.mark.django_db(transaction=True)
postgres_only = pytest.mark.skipif(connection.vendor != "postgresql", reason="Needs a server.")


class Holder:
    """Stands for a hub."""


@pytest.fixture(autouse=True)
def _one_thread(settings):
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "WORKERS": 1}


@pytest.fixture
async def holder():
    hub = Holder()
    kept_connections.hold(hub)
    yield hub
    await stop_keeping_connections(hub)


def used() -> Any:
    """Execute a statement, and return the driver's connection."""
    get_user_model().objects.count()
    return connections["default"].connection


def opened() -> Any:
    return connections["default"].connection


def terminate(raw: Any) -> None:
    """End the session of a connection, as an administrator does; not those of other tests."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [raw.info.backend_pid])
        assert cursor.fetchone() == (True,)


async def test_connection_stays_open_between_calls(holder):
    raw = await run_in_threadpool(used)
    assert await run_in_threadpool(used) is raw
    assert await run_in_threadpool(opened) is raw


async def test_connection_is_closed_after_a_call_without_a_hub():
    await run_in_threadpool(used)
    assert await run_in_threadpool(opened) is None


async def test_connections_are_closed_when_the_hub_has_stopped(api_key):
    async with connect(token=api_key) as client:
        await client.subscribe("posts")
        raw = await run_in_threadpool(used)
        assert await run_in_threadpool(opened) is raw
    # without another call
    threads = concurrency._workers, concurrency._authentication_workers
    assert not any(workers._keeping for workers in threads)
    assert await run_in_threadpool(opened) is None


async def test_call_that_runs_while_the_hub_stops_closes_its_connection(holder):
    def slow() -> None:
        used()
        time.sleep(0.3)

    running = asyncio.create_task(run_in_threadpool(slow))
    await asyncio.sleep(0.1)
    await stop_keeping_connections(holder)
    await running
    assert await run_in_threadpool(opened) is None


async def test_idle_connections_are_closed(holder, monkeypatch):
    monkeypatch.setattr(kept_connections, "IDLE_SECONDS", 0.1)
    await run_in_threadpool(used)
    await asyncio.sleep(0.5)
    assert await run_in_threadpool(opened) is None


async def test_old_connections_are_closed(holder, monkeypatch):
    monkeypatch.setattr(kept_connections, "MAX_AGE_SECONDS", 0.2)
    raw = await run_in_threadpool(used)
    assert await run_in_threadpool(used) is raw
    await asyncio.sleep(0.3)
    assert await run_in_threadpool(opened) is None


async def test_other_ages_of_the_project_apply(holder, monkeypatch):
    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", 1)
    monkeypatch.setattr(kept_connections, "IDLE_SECONDS", 0.05)
    raw = await run_in_threadpool(used)
    await asyncio.sleep(0.2)
    assert await run_in_threadpool(opened) is raw  # it is not one that the thread keeps
    await asyncio.sleep(1)
    assert await run_in_threadpool(opened) is None


async def test_connection_in_an_unfinished_transaction_is_closed(holder):
    def leave_transaction() -> None:
        used()
        transaction.set_autocommit(False)

    await run_in_threadpool(leave_transaction)
    assert await run_in_threadpool(opened) is None


@postgres_only
async def test_connection_that_the_server_closed_while_idle_is_replaced(holder):
    raw = await run_in_threadpool(used)
    await call(terminate, raw)

    def write() -> None:
        with transaction.atomic():  # which is not executed twice
            get_user_model().objects.create(username="ada")

    await run_in_threadpool(write)
    assert await run_in_threadpool(used) is not raw


@postgres_only
async def test_first_query_is_repeated_if_the_server_closed_the_connection(holder):
    await run_in_threadpool(used)

    def lose_and_read() -> int:
        call_terminate()
        return get_user_model().objects.count()

    assert await run_in_threadpool(lose_and_read) == 0


@postgres_only
@pytest.mark.parametrize("kind", ["second query", "write", "transaction"])
async def test_nothing_else_is_repeated(holder, kind):
    await run_in_threadpool(used)

    def lose_and_continue() -> None:
        users = get_user_model().objects
        if kind == "second query":
            users.count()
        call_terminate()
        if kind == "write":
            users.filter(username="x").update(first_name="y")
        elif kind == "transaction":
            with transaction.atomic():
                users.count()
        else:
            users.count()

    with pytest.raises(OperationalError):
        await run_in_threadpool(lose_and_continue)
    await run_in_threadpool(used)


def call_terminate() -> None:
    """End the session of this thread's connection, from another thread."""
    asyncio.run(call(terminate, opened()))

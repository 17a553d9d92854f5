"""Calls in worker threads: context, cancellation, settings, forks and the end of the process."""

from __future__ import annotations

import asyncio
import contextvars
import os
import subprocess
import sys
import threading
import time
import warnings

import pytest
from django.db import connection, connections

from django_cocobase_realtime.utils import concurrency
from django_cocobase_realtime.utils.concurrency import (
    DatabaseThread,
    run_authentication,
    run_for_subject,
    run_in_threadpool,
    set_owner,
)
from django_cocobase_realtime.utils.fair_queue import SERVER, Owner

pytestmark = pytest.mark.django_db(transaction=True)

color = contextvars.ContextVar("color", default="none")


async def test_call_sees_the_context_of_its_caller():
    color.set("red")
    assert await run_in_threadpool(color.get) == "red"
    assert await run_authentication(SERVER, color.get) == "red"


async def test_calls_count_for_the_owner_and_subject_of_the_task(monkeypatch):
    submitted = []
    submit = concurrency._workers.submit

    def record(call, owner, subject):
        submitted.append((owner, subject))
        return submit(call, owner, subject)

    monkeypatch.setattr(concurrency._workers, "submit", record)

    async def client():
        set_owner(Owner("ada", 1))
        await run_in_threadpool(int)
        await run_for_subject("posts", int)
        await asyncio.create_task(run_in_threadpool(int))

    async def catch_up():
        set_owner(Owner("ada", 1).background(), "posts")
        await run_in_threadpool(int)

    await asyncio.create_task(client())
    await asyncio.create_task(catch_up())
    await run_in_threadpool(int)
    ada = Owner("ada", 1)
    assert submitted == [
        (ada, None),
        (ada, "posts"),
        (ada, None),
        (ada.background(), "posts"),
        (SERVER, None),
    ]


async def test_call_that_waits_is_not_made_after_its_task_was_cancelled(settings):
    settings.COCOBASE_REALTIME = {"WORKERS": 1}
    release, made = threading.Event(), []
    first = asyncio.create_task(run_in_threadpool(release.wait, 5))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(run_in_threadpool(made.append, 1))
    await asyncio.sleep(0.05)
    second.cancel()
    await asyncio.sleep(0.05)
    release.set()
    assert await first
    await run_in_threadpool(int)
    assert made == []


async def test_authentication_does_not_wait_for_other_calls(settings):
    settings.COCOBASE_REALTIME = {"WORKERS": 1}
    release = threading.Event()
    other = asyncio.create_task(run_in_threadpool(release.wait, 5))
    await asyncio.sleep(0.05)
    assert await asyncio.wait_for(run_authentication(Owner("address", 1), int), 2) == 0
    release.set()
    await other


async def test_slow_authentication_of_one_address_does_not_delay_another(settings):
    settings.COCOBASE_REALTIME = {"WORKERS": 1}
    release = threading.Event()
    slow = [
        asyncio.create_task(run_authentication(Owner("a", n), release.wait, 5)) for n in range(10)
    ]
    await asyncio.sleep(0.05)
    assert await asyncio.wait_for(run_authentication(Owner("b", 1), int), 2) == 0
    assert not any(task.done() for task in slow)
    release.set()
    await asyncio.gather(*slow)


async def test_connections_of_threads_that_end_are_closed(settings, monkeypatch):
    opened = []

    def use_database():
        time.sleep(0.05)  # so that each call needs a thread of its own
        connection.ensure_connection()
        opened.append(connections["default"])

    monkeypatch.setitem(connection.settings_dict, "CONN_MAX_AGE", None)
    settings.COCOBASE_REALTIME = {"WORKERS": 8}
    owners = [Owner(n) for n in range(8)]
    tasks = []
    for owner in owners:
        set_owner(owner)
        tasks.append(asyncio.create_task(run_in_threadpool(use_database)))
    await asyncio.gather(*tasks)
    settings.COCOBASE_REALTIME = {"WORKERS": 1}
    await run_in_threadpool(int)
    deadline = time.monotonic() + 5
    while len(concurrency._workers._threads) > 1 and time.monotonic() < deadline:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    assert sum(wrapper.connection is not None for wrapper in opened) <= 1
    await run_in_threadpool(connections.close_all)


async def test_forked_process_has_workers_of_its_own(settings):
    """Its calls do not wait for those that the parent process was making."""
    settings.COCOBASE_REALTIME = {"WORKERS": 1}
    release = threading.Event()
    running = asyncio.create_task(run_in_threadpool(release.wait, 10))
    await asyncio.sleep(0.05)
    waiting = asyncio.create_task(run_in_threadpool(int))
    await asyncio.sleep(0.05)

    def fork() -> int:
        with warnings.catch_warnings(action="ignore"):  # there are other threads
            pid = os.fork()
        if pid == 0:
            status = 1
            try:
                asyncio.run(asyncio.wait_for(run_in_threadpool(int), 5))
                asyncio.run(asyncio.wait_for(run_authentication(SERVER, int), 5))
                status = 0
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert await asyncio.to_thread(fork) == 0
    release.set()
    assert await running
    assert await waiting == 0


EXITING = """
import asyncio, threading, time
import django
django.setup()
from django_cocobase_realtime.utils.concurrency import run_in_threadpool

def slow():
    time.sleep(0.5)
    print("ended", flush=True)

async def main():
    asyncio.get_running_loop().create_task(run_in_threadpool(slow))
    await asyncio.sleep(0.1)

asyncio.run(main())
"""


def test_process_ends_after_the_calls_that_run():
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = [sys.executable, "-c", EXITING]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def query():
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return connections["default"]


@pytest.mark.parametrize("closed", [True, False])
async def test_database_thread_closes_its_connection(closed):
    """Also without `close`, because an event loop may end before that is called."""
    thread = DatabaseThread("default")
    used = await thread.run(query)
    assert used.connection is not None
    worker = thread._thread
    if closed:
        thread.close()
        with pytest.raises(RuntimeError):
            await thread.run(query)
    del thread
    await asyncio.to_thread(worker.join, 5)
    assert not worker.is_alive()
    assert used.connection is None

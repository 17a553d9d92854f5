"""The paths in the architecture page are those that a real save and a real token take."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from django.db import connection

import django_cocobase_realtime
from django_cocobase_realtime.pubsub.listener import DatabaseListeners
from django_cocobase_realtime.testing import connect
from django_cocobase_realtime.utils import concurrency
from django_cocobase_realtime.utils.workers import FairWorkers
from tests.app.models import Post

PACKAGE = Path(django_cocobase_realtime.__file__).parent
PAGE = PACKAGE.parent / "docs" / "explanation" / "architecture.md"

pytestmark = pytest.mark.django_db(transaction=True)


class CallRecorder:
    """Records the package's modules in the order of their first call, in all threads."""

    def __init__(self) -> None:
        self.active = False
        self.modules: dict[str, None] = {}

    def __call__(self, frame, event, argument) -> None:
        # the broker asks who may be the leader before there is anything to do
        asked = {frame.f_code.co_name, frame.f_back and frame.f_back.f_code.co_name}
        if self.active and event == "call" and not asked & {"may_lead", "is_leader"}:
            filename = Path(frame.f_code.co_filename)
            if filename.is_relative_to(PACKAGE):
                self.modules.setdefault(str(filename.relative_to(PACKAGE)))


@contextmanager
def recorded_calls() -> Iterator[CallRecorder]:
    """Profile this thread and every thread that is started within the block."""
    recorder = CallRecorder()
    threading.setprofile(recorder)
    sys.setprofile(recorder)
    try:
        yield recorder
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


@pytest.fixture(autouse=True)
def _new_threads(monkeypatch, settings):
    """Use threads that are started under the recorder, and read the log only when notified."""
    workers = [FairWorkers(name, lambda: 2) for name in ("worker", "authentication")]
    monkeypatch.setattr(concurrency, "_workers", workers[0])
    monkeypatch.setattr(concurrency, "_authentication_workers", workers[1])
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "LOG": {"POLL": 3600}}
    # PostgreSQL: the log is read as soon as the connection is open
    monkeypatch.setattr(DatabaseListeners, "follow", lambda *args: None)
    yield
    for started in workers:
        started.close()


def documented_path(title: str) -> list[str]:
    """Return the modules in the first column of the table under a heading."""
    section = PAGE.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([\w/]+\.py)` \|", section, re.M)


def packages(modules) -> list[str]:
    return list(dict.fromkeys(module.partition("/")[0] for module in modules))


def save_post() -> None:
    Post.objects.create(title="recorded")
    connection.close()


async def test_save_reaches_the_socket_by_the_documented_path(api_key):
    documented = documented_path("The path of a change")
    if connection.vendor == "postgresql":
        by_thread = ["thread_reader", "reader", "sequencer"]
        start = documented.index("log/thread_reader.py")
        assert documented[start : start + 3] == [f"log/{name}.py" for name in by_thread]
        documented[start : start + 3] = ["log/postgres_reader.py", "log/postgres_numbering.py"]
    with recorded_calls() as recorder:
        async with connect(token=api_key) as client:
            await client.subscribe("posts")
            recorder.active = True
            with ThreadPoolExecutor(1) as thread:
                await asyncio.get_running_loop().run_in_executor(thread, save_post)
            await client.receive("event")
            recorder.active = False
    called = [module for module in recorder.modules if module in documented]
    assert called == documented
    assert packages(called) == ["capture", "log", "pubsub", "delivery", "transport"]


async def test_save_changes_a_window_by_the_documented_path(api_key):
    documented = documented_path("The path of a change to a live query")
    with recorded_calls() as recorder:
        async with connect(token=api_key) as client:
            await client.subscribe("posts", window={"limit": 5, "order": "-title"})
            await client.receive("window")
            recorder.active = True
            with ThreadPoolExecutor(1) as thread:
                await asyncio.get_running_loop().run_in_executor(thread, save_post)
            await client.receive("window")
            recorder.active = False
    called = [module for module in recorder.modules if module in documented]
    assert called == documented


async def test_token_is_checked_by_the_documented_path(api_key):
    documented = documented_path("The path of a token")
    with recorded_calls() as recorder:
        async with connect(authenticate=False) as client:
            recorder.active = True
            await client.send({"type": "auth", "token": api_key})
            await client.receive("authenticated")
            recorder.active = False
    called = [module for module in recorder.modules if module in documented]
    assert called == documented

"""Processes that call handlers: one of them does, and another one continues if it is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext

import pytest
from django.db import connections

from django_cocobase_realtime.models import Handler
from tests.app.models import Post
from tests.support.servers import ROOT
from tests.support.triggers import watching_by_triggers

pytestmark = pytest.mark.django_db(transaction=True)


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def start():
    processes = []

    def start(collection, path, collections):
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "REALTIME_TEST_DATABASES": json.dumps(
                {name: connections[name].settings_dict for name in connections}, default=str
            ),
        }
        if collections:
            environment["REALTIME_TEST_SETTINGS"] = json.dumps({"COLLECTIONS": collections})
        command = [sys.executable, "-m", "tests.support.handler_process", collection, str(path)]
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.mark.parametrize("capture", ["signals", "triggers"])
def test_killed_between_function_and_position(start, tmp_path, capture):
    path, name, collections = tmp_path / "titles", "posts", {}
    watching = nullcontext()
    if capture == "triggers":
        name, collections = "post", {"post": {"model": "app.Post", "capture": "triggers"}}
        watching = watching_by_triggers(Post)
    with watching:
        processes = [start(name, path, collections) for _ in range(2)]
        wait_for(lambda: Handler.objects.exclude(owner="").exists())
        for title in ("a", "kill", "c"):
            Post.objects.create(title=title)
        wait_for(lambda: any(process.poll() is not None for process in processes))
        (killed,) = [process for process in processes if process.poll() is not None]
        assert killed.returncode == -signal.SIGKILL
        assert path.read_text().split() == ["a", "kill"]
        (left,) = [process for process in processes if process is not killed]
        wait_for(lambda: path.read_text().split() == ["a", "kill", "kill", "c"])
        wait_for(lambda: Handler.objects.get().seq == 3)
        left.send_signal(signal.SIGTERM)
        assert left.wait(20) == 0
        assert Handler.objects.get().owner == ""

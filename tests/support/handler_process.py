"""A process that calls a handler: ``python -m tests.support.handler_process COLLECTION FILE``.

The function appends the title of each change to the file. After the first one with the title
``kill``, the process is killed before the position is stored.
"""

import os
import signal
import sys
from pathlib import Path

import django


def main() -> None:
    from django_cocobase_realtime import on_change
    from django_cocobase_realtime.declarations.handler import handler_registry
    from django_cocobase_realtime.handlers import leases
    from django_cocobase_realtime.handlers.runner import HandlerRunner
    from django_cocobase_realtime.handlers.worker import run

    leases.LEASE_SECONDS = 1.0
    collection, path = sys.argv[1], Path(sys.argv[2])
    store = HandlerRunner._store

    @on_change(collection, name="process")
    def function(change):
        with path.open("a") as file:
            file.write(f"{change.after['title']}\n")

    def kill_before_store(self, row, *args):
        titles = path.read_text().splitlines() if path.exists() else []
        if titles[-1:] == ["kill"] and titles.count("kill") == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        store(self, row, *args)

    HandlerRunner._store = kill_before_store
    run(handler_registry.all())


if __name__ == "__main__":
    django.setup()
    main()

"""Leases, by which one process at a time calls a handler.

A lease is stored with the position of the handler, and is renewed by a thread while the function
runs. If the process is killed, another one continues when the lease has ended. Unlike a lock of a
session, this also works behind a pooler and on SQLite, and needs no open transaction.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import Any

from django.db import connections
from django.db.models import FloatField, Q
from django.db.models.expressions import RawSQL, Value

from ..models import Handler
from ..utils.repeated_log import omitted_text, repeated_log

logger = logging.getLogger(__name__)

LEASE_SECONDS = 10.0  # duration of a lease that is not renewed
RENEWALS = 4  # times that it is renewed within its duration

# alias of the database, and name of the handler
Key = tuple[str, str]


class Leases:
    """The leases of this process. Their methods may be called by several threads."""

    def __init__(self) -> None:
        # identifies the process in the rows of its handlers
        self.owner = uuid.uuid4().hex
        # monotonic times until which the leases are valid
        self._valid_until: dict[Key, float] = {}
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, using: str, name: str) -> bool:
        """Get the lease of a handler that has a row, unless another process has it."""
        if self.is_valid(using, name):
            return True
        began = time.monotonic()
        now = _now(using)
        rows = Handler.objects.using(using).filter(name=name)
        free = rows.filter(Q(owner="") | Q(owner=self.owner) | Q(lease_until__lt=now))
        if free.update(owner=self.owner, lease_until=now + LEASE_SECONDS) == 0:
            return False
        with self._lock:
            self._valid_until[using, name] = began + LEASE_SECONDS
            if self._thread is None and not self._is_closed.is_set():
                self._thread = threading.Thread(target=self._renew_all, daemon=True)
                self._thread.start()
        return True

    def is_valid(self, using: str, name: str) -> bool:
        """Return whether no other process can have the lease of a handler."""
        return time.monotonic() < self._valid_until.get((using, name), 0.0)

    def forget(self, using: str, name: str) -> None:
        """Do not renew a lease, because another process has it."""
        with self._lock:
            self._valid_until.pop((using, name), None)

    def release(self, using: str, name: str) -> None:
        """Let another process call a handler."""
        self.forget(using, name)
        Handler.objects.using(using).filter(name=name, owner=self.owner).update(owner="")

    def close(self) -> None:
        """End the thread that renews the leases."""
        self._is_closed.set()
        if self._thread is not None:
            self._thread.join()

    def _renew_all(self) -> None:
        while not self._is_closed.wait(LEASE_SECONDS / RENEWALS):
            with self._lock:
                keys = list(self._valid_until)
            for using, name in keys:
                try:
                    self._renew(using, name)
                except Exception as error:
                    connections.close_all()
                    omitted = repeated_log.admit(("lease", using))
                    if omitted is not None:
                        text = omitted_text(omitted)
                        logger.warning("Leases in %r cannot be renewed: %r%s", using, error, text)
        connections.close_all()

    def _renew(self, using: str, name: str) -> None:
        began = time.monotonic()
        rows = Handler.objects.using(using).filter(name=name, owner=self.owner)
        is_own = rows.update(lease_until=_now(using) + LEASE_SECONDS) == 1
        with self._lock:
            if (using, name) not in self._valid_until:
                return  # released in the meantime
            if is_own:
                self._valid_until[using, name] = began + LEASE_SECONDS
            else:
                del self._valid_until[using, name]


def held_leases(using: str) -> set[str]:
    """Return the names of the handlers in a database that a process calls now."""
    rows = Handler.objects.using(using).exclude(owner="").filter(lease_until__gte=_now(using))
    return set(rows.values_list("name", flat=True))


def _now(using: str) -> Any:
    """Return the expression for the time by the clock of the database.

    The processes that use SQLite run on one host.
    """
    if connections[using].vendor == "postgresql":
        return RawSQL("extract(epoch FROM clock_timestamp())", [], output_field=FloatField())
    return Value(time.time(), output_field=FloatField())

"""Change a row many times, in a thread of the server, as a busy application would."""

import logging
import threading
import time

from django.db import connection

from django_cocobase_realtime import broadcast

from .models import Counter

logger = logging.getLogger(__name__)


class ChangeGenerator:
    """Increment one `Counter`, ``rate`` times per second.

    It has one run at a time: starting a new run ends the current one. The current rate is
    broadcast to the room that has the generator's name.
    """

    def __init__(self, name):
        self.name = name
        # changes per second; 0 if there is no run
        self.rate = 0
        # the first and the last number of the latest run, and how many of them were saved
        self.first = self.last = self.made = 0
        self._run = None
        self._lock = threading.Lock()

    @property
    def is_running(self):
        return self._run is not None

    def start(self, rate, count, at=None):
        """Make ``count`` changes. ``at`` maps a number of changes to a function to call then."""
        with self._lock:
            self._run = run = object()
            counter, _ = Counter.objects.get_or_create(name=self.name)
            self.made = 0
            self._set_rate(rate)
            self.first, self.last = counter.number + 1, counter.number + count
            args = (run, counter, rate, at or {})
            threading.Thread(target=self._make_changes, args=args, daemon=True).start()

    def stop(self):
        with self._lock:
            self._run = None
            self._set_rate(0)

    def _set_rate(self, rate):
        self.rate = rate
        broadcast(self.name, {"rate": rate})

    def _make_changes(self, run, counter, rate, at):
        due = time.monotonic()
        try:
            while self._make_change(run, counter):
                at.get(self.made, lambda: None)()
                due = max(due + 1 / rate, time.monotonic() - 1)
                time.sleep(max(0, due - time.monotonic()))
        except Exception:
            logger.exception("Stopped changing %s.", self.name)
            if run is self._run:
                self.stop()
        finally:
            connection.close()

    def _make_change(self, run, counter):
        """Save the next number. Return whether the run continues."""
        with self._lock:
            if run is not self._run:
                return False
            counter.number += 1
            counter.save()
            self.made += 1
            if counter.number < self.last:
                return True
            self._run = None
            self._set_rate(0)
            return False


load = ChangeGenerator("load")
reconnect = ChangeGenerator("reconnect")

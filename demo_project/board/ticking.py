"""Changes made by a thread of the server, as a busy application would make them."""

import logging
import threading
import time

from django.db import connection

from django_cocobase_realtime import broadcast

from .models import Beat

logger = logging.getLogger(__name__)


class Ticker:
    """Counts one `Beat` up, ``rate`` times a second. One run at a time; a new one ends the old.

    The room of its name is told the rate.
    """

    def __init__(self, name):
        self.name = name
        self.rate = self.first = self.last = self.made = 0
        self._run = None
        self._lock = threading.Lock()

    @property
    def is_running(self):
        return self._run is not None

    def start(self, rate, count, at=None):
        """Make ``count`` changes. ``at`` maps how many were made to what is called then."""
        with self._lock:
            self._run = run = object()
            beat, _ = Beat.objects.get_or_create(name=self.name)
            self.made = 0
            self._tell(rate)
            self.first, self.last = beat.number + 1, beat.number + count
            args = (run, beat, rate, at or {})
            threading.Thread(target=self._count, args=args, daemon=True).start()

    def stop(self):
        with self._lock:
            self._run = None
            self._tell(0)

    def _tell(self, rate):
        self.rate = rate
        broadcast(self.name, {"rate": rate})

    def _count(self, run, beat, rate, at):
        due = time.monotonic()
        try:
            while self._tick(run, beat):
                at.get(self.made, lambda: None)()
                due = max(due + 1 / rate, time.monotonic() - 1)
                time.sleep(max(0, due - time.monotonic()))
        except Exception:
            logger.exception("No more changes of %s.", self.name)
            if run is self._run:
                self.stop()
        finally:
            connection.close()

    def _tick(self, run, beat):
        """One change, and whether there is to be another."""
        with self._lock:
            if run is not self._run:
                return False
            beat.number += 1
            beat.save()
            self.made += 1
            if beat.number < self.last:
                return True
            self._run = None
            self._tell(0)
            return False


traffic = Ticker("traffic")
plug_run = Ticker("plug")

"""Move one card on the server, so that a page that was just opened shows a change."""

import logging
import threading
import time

from django.db import connection

from . import users
from .models import Task

logger = logging.getLogger(__name__)

TITLE = "Nightly backup"
FIRST_DELAY, DELAY = 1.0, 1.5  # seconds before the first move, and between moves
MOVES = 3  # as many as there are columns, so that the card returns to where it was


class AutoMoves:
    """Move the card `MOVES` times in a thread of the server.

    Starting again during a run starts the count again; there is never more than one thread.
    """

    def __init__(self):
        self._lock = threading.Lock()
        # how many moves are left; the thread ends at 0
        self._left = 0
        self._is_running = False

    def start(self):
        with self._lock:
            self._left = MOVES
            if not self._is_running:
                self._is_running = True
                threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        try:
            time.sleep(FIRST_DELAY)
            while self._take_move():
                move_card()
                time.sleep(DELAY)
        except Exception:
            logger.exception("Stopped moving the card %r.", TITLE)
            with self._lock:
                self._is_running = False
        finally:
            connection.close()

    def _take_move(self):
        """Decrement the number of moves that are left. Return whether there was one."""
        with self._lock:
            self._is_running = self._left > 0
            self._left -= 1
            return self._is_running


def move_card():
    """Move the card to the next column, or create it if it was deleted."""
    columns = [value for value, _ in Task.COLUMNS]
    card = Task.objects.filter(title=TITLE).order_by("pk").first()
    if card is None:
        card = Task(title=TITLE, column=columns[-1])
    card.column = columns[(columns.index(card.column) + 1) % len(columns)]
    card.assignee = users.get_named(users.SERVER)
    card.save()


auto_moves = AutoMoves()

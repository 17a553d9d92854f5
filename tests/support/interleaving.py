"""Run two transactions step by step, in a given order, and note which step waits for a lock."""

import queue
import threading
import time

from django.db import connection, connections, transaction


class Transaction(threading.Thread):
    """A transaction in a thread of its own, which executes the steps that it is given."""

    def __init__(self, name, immediate=False):
        super().__init__(daemon=True)
        self.name = name
        self._immediate = immediate
        self.error = None
        self.finished = False
        self._steps = queue.Queue()
        self._pending = 0
        self._ready = threading.Event()
        self.start()
        self._ready.wait(10)

    def run(self):
        try:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute("SET LOCAL deadlock_timeout = '300ms'")
                    if self._immediate:
                        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
                    cursor.execute("SELECT pg_backend_pid()")
                    (self.pid,) = cursor.fetchone()
                self._ready.set()
                while (step := self._steps.get()) is not None:
                    step()
                    self._pending -= 1
        except Exception as error:
            self.error = error
        finally:
            self.finished = True
            self._ready.set()
            connections.close_all()

    def submit(self, step):
        """Execute a step after those that were given before; None commits."""
        self._pending += 1
        self._steps.put(step)

    def settle(self):
        """Wait until nothing is left to do or a lock is waited for; return whether one is."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.finished or self._pending == 0:
                return False
            if self._is_waiting():
                return True
            time.sleep(0.005)
        raise AssertionError(f"{self.name} does not end")

    def _is_waiting(self):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = %s AND NOT granted)", [self.pid]
            )
            return cursor.fetchone()[0]


def interleave(first, second, order, *, immediate=False):
    """Run two lists of steps; ``order`` names whose step is next, by 1 and 2.

    ``immediate``: foreign keys are checked, and lock the rows that they refer to, after each step
    instead of at the end.

    Returns for each step of the order whether each transaction waits for a lock after it, and the
    errors of both transactions. The transactions are committed at the end, in the order 1, 2.
    """
    transactions = {
        "1": Transaction("first", immediate),
        "2": Transaction("second", immediate),
    }
    steps = {"1": iter(first), "2": iter(second)}
    waits = []
    for name in order:
        transactions[name].submit(next(steps[name]))
        transactions[name].settle()
        waits.append(tuple(t.settle() for t in transactions.values()))
    for running in transactions.values():
        running.submit(None)
    for running in transactions.values():
        running.join(20)
        assert running.finished
    return waits, [running.error for running in transactions.values()]

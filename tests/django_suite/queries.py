"""Counts the queries that Django records, for each test."""

from collections import deque
from typing import Any

from django.db import connections
from django.db.backends.base import base


class CountingDeque(deque):
    """A connection's log of queries that also counts what was appended and removed again."""

    appended = 0

    def append(self, query: Any) -> None:
        self.appended += 1
        super().append(query)


def count_queries() -> None:
    """Count the queries of the connections that are created from now on."""
    base.deque = CountingDeque


def start() -> dict[str, int]:
    """Record all queries of the open connections, and return how many they had so far."""
    for connection in connections.all():
        connection.force_debug_cursor = True
    return totals()


def totals() -> dict[str, int]:
    """Return how many queries each connection has recorded."""
    return {connection.alias: connection.queries_log.appended for connection in connections.all()}

"""Count the statements of a process that read posts, if ``BENCH_COUNT_QUERIES`` is set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.backends.signals import connection_created

count = 0


def _count(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: Any) -> Any:
    global count
    if str(sql).startswith("SELECT") and 'FROM "app_post"' in str(sql):
        count += 1
    return execute(sql, params, many, context)


def _wrap(connection: Any, **kwargs: Any) -> None:
    if _count not in connection.execute_wrappers:
        connection.execute_wrappers.append(_count)


def install() -> None:
    """Count the statements of all connections that are opened from now on."""
    connection_created.connect(_wrap)

"""Calls of synchronous code in threads, which leave no database connections behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from django.db import connections


async def call(function: Callable[..., Any], *args: Any) -> Any:
    """Call a function in a thread, and close the database connections that it opened."""

    def run() -> Any:
        try:
            return function(*args)
        finally:
            connections.close_all()

    return await asyncio.to_thread(run)

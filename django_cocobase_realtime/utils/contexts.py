"""Comparison of context variables, on which a project's routers, managers and fields may depend."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextvars import Context, ContextVar
from typing import Any

from asgiref.sync import ThreadSensitiveContext
from django.core.cache import BaseCache
from django.db.backends.base.base import BaseDatabaseWrapper

# objects that each task may have of its own, which stand for the same cache or database
OWN_OBJECTS = (BaseCache, BaseDatabaseWrapper, ThreadSensitiveContext)
# variables that say for whom code runs, and copies of one value that some tasks have
IGNORED = frozenset({"realtime_owner", "realtime_subject", "decimal_context"})
# the variable of each `asgiref.local.Local`, for example that of the active translation
LOCAL = "asgiref.local"


def context_key(context: Context) -> Hashable:
    """Return what distinguishes contexts, apart from objects that every task has of its own.

    Keys are comparable only while the contexts exist, since values are compared by identity.
    """
    return frozenset(_items(context))


def _items(context: Context) -> Iterator[tuple[ContextVar[Any], str, int]]:
    for variable, value in context.items():
        if variable.name in IGNORED or isinstance(value, OWN_OBJECTS):
            continue
        data = getattr(value, "data", value) if variable.name == LOCAL else None
        if not isinstance(data, dict):
            yield variable, "", id(value)
            continue
        for name, member in data.items():
            if not isinstance(member, OWN_OBJECTS):
                yield variable, name, id(member)

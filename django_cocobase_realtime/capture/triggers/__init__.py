"""Triggers of the database that write the log, which also capture raw SQL and other programs.

A write is logged either by triggers or where the ORM executes its statement, so that no change is
logged twice (`presence`).
"""

from .installation import (
    by_triggers,
    install,
    install_sql,
    is_installed,
    left_over,
    removal_sql,
    remove,
    remove_named,
)
from .migrations import is_migrating
from .presence import logged_tables, logs_by_triggers
from .sources import Tables
from .synchronization import install_all, synchronize

__all__ = [
    "Tables",
    "by_triggers",
    "install",
    "install_all",
    "install_sql",
    "is_installed",
    "is_migrating",
    "left_over",
    "logged_tables",
    "logs_by_triggers",
    "removal_sql",
    "remove",
    "remove_named",
    "synchronize",
]

"""Triggers of the database that write the log, which also capture raw SQL and other programs.

A collection is logged either by its triggers or by the ORM's statements, so that no change is
logged twice (`logs_by_triggers`).
"""

from .installation import by_triggers, install, is_installed, logs_by_triggers, remove

__all__ = ["by_triggers", "install", "is_installed", "logs_by_triggers", "remove"]

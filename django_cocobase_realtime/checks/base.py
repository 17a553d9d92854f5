"""Functions that make the messages of the system checks.

The number of a message identifies its kind of problem; numbers are never reused.
"""

from __future__ import annotations

from django.core import checks
from django.core.checks import CheckMessage

ID_PREFIX = "cocobase_realtime"  # as in cocobase_realtime.E001


def error(number: int, message: str, hint: str | None = None) -> CheckMessage:
    """Return an error, with which the app cannot work."""
    return checks.Error(message, hint=hint, id=f"{ID_PREFIX}.E{number:03}")


def warning(number: int, message: str, hint: str | None = None) -> CheckMessage:
    """Return a warning, with which the app works, but not as expected."""
    return checks.Warning(message, hint=hint, id=f"{ID_PREFIX}.W{number:03}")


def info(number: int, message: str, hint: str | None = None) -> CheckMessage:
    """Return a note about something that may be intended."""
    return checks.Info(message, hint=hint, id=f"{ID_PREFIX}.I{number:03}")

"""Messages of the system checks. Each kind of problem has a number of its own, never reused."""

from __future__ import annotations

from django.core import checks
from django.core.checks import CheckMessage

ID_PREFIX = "cocobase_realtime"


def error(number: int, message: str, hint: str | None = None) -> CheckMessage:
    """Return an error: the app cannot work like this."""
    return checks.Error(message, hint=hint, id=f"{ID_PREFIX}.E{number:03}")


def warning(number: int, message: str, hint: str | None = None) -> CheckMessage:
    """Return a warning: the app works, but not as it should."""
    return checks.Warning(message, hint=hint, id=f"{ID_PREFIX}.W{number:03}")


def info(number: int, message: str, hint: str | None = None) -> CheckMessage:
    """Return a note about something that may be intended."""
    return checks.Info(message, hint=hint, id=f"{ID_PREFIX}.I{number:03}")

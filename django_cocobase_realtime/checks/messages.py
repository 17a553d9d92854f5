"""How a check says what it found: every message has a stable id."""

from __future__ import annotations

from django.core import checks
from django.core.checks import CheckMessage

ID = "cocobase_realtime"


def error(number: int, message: str, hint: str | None = None) -> CheckMessage:
    """It cannot work so."""
    return checks.Error(message, hint=hint, id=f"{ID}.E{number:03}")


def warning(number: int, message: str, hint: str | None = None) -> CheckMessage:
    """It works, but not well."""
    return checks.Warning(message, hint=hint, id=f"{ID}.W{number:03}")


def info(number: int, message: str, hint: str | None = None) -> CheckMessage:
    """Worth knowing; nothing is wrong."""
    return checks.Info(message, hint=hint, id=f"{ID}.I{number:03}")

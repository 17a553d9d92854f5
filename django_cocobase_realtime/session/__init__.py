"""The protocol as a state machine without I/O: command in, effects out."""

from .machine import Session

__all__ = ["Session"]

"""The protocol as a state machine without I/O: command in, effects out."""

from .machine import Session
from .sdk import SdkSession

__all__ = ["SdkSession", "Session"]

"""The protocol as a state machine without I/O: command in, effects out."""

from .sdk_session import SdkSession
from .session import Session

__all__ = ["SdkSession", "Session"]

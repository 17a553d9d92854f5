"""The conversation with one client, without I/O: a frame in, effects out."""

from .sdk_session import SdkSession
from .session import Session

__all__ = ["SdkSession", "Session"]

"""The protocol: the conversation with one client, without I/O.

A *session* receives frames and yields *effects*, which the consumer carries out.
"""

from .sdk_session import SdkSession
from .session import Session

__all__ = ["SdkSession", "Session"]

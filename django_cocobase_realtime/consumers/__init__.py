"""WebSocket consumers, which carry out what the protocol decides."""

from .consumer import RealtimeConsumer

__all__ = ["RealtimeConsumer"]

"""WebSocket consumers: they carry out what the protocol decides."""

from .consumer import RealtimeConsumer

__all__ = ["RealtimeConsumer"]

"""Limits of messages for hypercorn.

hypercorn decompresses messages of any size, which no option prevents, and it keeps all that a
client sends of a message that is too large. It refuses each part of it again, so that it does not
read the client's close frame that follows. The functions here find its stream behind ``send``
by its attributes. If it is not found (with another server, or a wrapped ``send``), they do nothing.
"""

from __future__ import annotations

from typing import Any


class MessageBuffer:
    """The buffer of one incoming message, which drops a message that is too large."""

    __slots__ = ("_buffer", "_is_dropping")

    def __init__(self, buffer: Any) -> None:
        # hypercorn's own buffer
        self._buffer = buffer
        # whether the message is too large
        self._is_dropping = False

    def extend(self, event: Any) -> None:
        """Add a part of a message.

        Raises hypercorn's exception once if the message is too large: hypercorn then closes the
        connection with 1009.
        """
        if self._is_dropping:
            return
        try:
            self._buffer.extend(event)
        except Exception:
            self._buffer.value = None
            self._is_dropping = True
            raise

    def clear(self) -> None:
        """Begin the next message."""
        self._is_dropping = False
        self._buffer.clear()

    def to_message(self) -> Any:
        """Return the message for the application."""
        return self._buffer.to_message()


def limit_messages(send: Any, max_bytes: int) -> None:
    """Refuse compression, and larger messages. Called before the connection is accepted."""
    stream: Any = getattr(send, "__self__", None)
    buffer: Any = getattr(stream, "buffer", None)
    names = ("max_length", "value", "extend", "clear", "to_message")
    if not hasattr(getattr(stream, "handshake", None), "extensions"):
        return
    if all(hasattr(buffer, name) for name in names):
        stream.handshake.extensions = None
        buffer.max_length = min(buffer.max_length, max_bytes)
        stream.buffer = MessageBuffer(buffer)


def is_limited(send: Any) -> bool:
    """Return whether `limit_messages` has found the stream."""
    return isinstance(getattr(getattr(send, "__self__", None), "buffer", None), MessageBuffer)

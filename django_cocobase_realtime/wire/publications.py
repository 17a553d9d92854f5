"""Publications: the messages in the body of a ``POST publish`` request."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from .commands import Name, validation_message
from .json import InvalidJson, parse_object

MAX_MESSAGES = 100  # in one request
MAX_KEYS = 20_000  # keys of all objects in one request


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """A message to a room. The keys are those of `commands.Broadcast`."""

    room: Name
    message: Any
    idempotency_key: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    ephemeral: bool = False


class InvalidPublication(ValueError):
    """The body of a request is not valid. The message is for the client."""


def decode(body: bytes) -> list[Publication]:
    """Return the messages in the body of a request.

    The body is one message, ``{"room": …, "message": …}``, or ``{"messages": […]}``. Raises
    `InvalidPublication` if it is not valid.
    """
    try:
        frame = parse_object(body.decode(), max_keys=MAX_KEYS)
    except UnicodeDecodeError:
        raise InvalidPublication("The body must be JSON in UTF-8.") from None
    except InvalidJson as error:
        raise InvalidPublication(str(error)) from None
    try:
        if "messages" not in frame:
            return [msgspec.convert(frame, Publication)]
        if "room" in frame or "message" in frame:
            raise InvalidPublication("Send either one message or messages, not both.")
        publications = msgspec.convert(frame["messages"], list[Publication])
    except msgspec.ValidationError as error:
        raise InvalidPublication(validation_message(str(error))) from None
    if not 0 < len(publications) <= MAX_MESSAGES:
        raise InvalidPublication(f"messages must be a list of 1 to {MAX_MESSAGES} messages.")
    return publications

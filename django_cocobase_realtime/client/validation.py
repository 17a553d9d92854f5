"""Checks of frames before they are sent, by the same rules as the server's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..wire.json import InvalidJson, parse_object
from .errors import InvalidRequest
from .interfaces import Frame

# a request id as long as they become; the server counts the whole frame
_ID = 2**31


def encode(frame: Frame) -> str:
    """Return a frame as JSON. Text stays as it is, which takes fewer bytes than escapes."""
    return json.dumps(frame, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def byte_length(value: Any) -> int:
    """Return the number of bytes of a value as JSON, in UTF-8."""
    return len(encode(value).encode())


def prepare(frame: Frame, max_bytes: int | None = None) -> dict[str, Any]:
    """Return a copy of a frame that the server can read.

    Changes that the program makes later to its own objects do not change the copy. Raises
    ``TypeError`` if the frame is not JSON, and `InvalidRequest` (``bad_request`` or ``too_large``)
    if the server would refuse it: lone surrogates, NUL, NaN, integers beyond 2^53, too many levels
    or keys, the same key twice, or more than ``max_bytes`` bytes.
    """
    try:
        text = encode({**frame, "id": _ID})
        copy = parse_object(text)
    except InvalidJson as error:
        raise InvalidRequest("bad_request", str(error)) from None
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("bad_request", f"The value is not JSON: {error}") from None
    check_size(text, max_bytes)
    del copy["id"]
    return copy


def check_names(options: Mapping[str, Any], names: frozenset[str]) -> None:
    """Raise ``TypeError`` for options with other names."""
    for name in options:
        if name not in names:
            known = f"The options are {', '.join(sorted(names))}."
            raise TypeError(f"update() got an unexpected keyword argument {name!r}. {known}")


def check_size(text: str, max_bytes: int | None) -> None:
    """Raise `InvalidRequest` (``too_large``) if a text has more than ``max_bytes`` bytes."""
    # no character has more than four bytes, so that short texts need not be encoded
    if max_bytes is not None and len(text) * 4 > max_bytes and len(text.encode()) > max_bytes:
        message = f"The request has more than {max_bytes} bytes, which the server would refuse."
        raise InvalidRequest("too_large", message)

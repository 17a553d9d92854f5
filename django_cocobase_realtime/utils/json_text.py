r"""Encoding and decoding of JSON, which succeed for every value that a row can contain.

Python's strings, and JSON in SQLite, may contain lone surrogates such as ``"\ud800"``, which no
UTF-8 text can contain. If encoding a value failed, one row would stop its collection for all
clients. Therefore such a value is cleaned: lone surrogates become U+FFFD, and values that are
nested too deeply become null. Other values are encoded without looking at them first.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

MAX_DEPTH = 200  # levels of nested objects and arrays that cleaning keeps

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder()


def encode_json(value: Any) -> bytes:
    """Return a value as JSON in UTF-8; NaN and Infinity become null.

    The value may contain what msgspec can encode, such as structs, datetimes and
    ``msgspec.Raw``. Raises ``TypeError`` if it contains anything else.
    """
    try:
        return _encoder.encode(value)
    except (UnicodeEncodeError, RecursionError):
        return _encoder.encode(clean(value))


def decode_json(text: str | bytes) -> Any:
    """Return the value of a JSON text, cleaned if that is necessary.

    Raises ``ValueError`` or ``RecursionError`` if it is not JSON, or nested too deeply.
    """
    try:
        return _decoder.decode(text)
    except (ValueError, UnicodeError):
        return clean(json.loads(text))


def round_trip(value: Any, encoder: type[json.JSONEncoder]) -> Any:
    """Return what a database returns for JSON: with string keys, and lists for tuples.

    Values that are nested too deeply are cut off, because saving them must not fail if the
    database accepts them.
    """
    try:
        return json.loads(json.dumps(value, cls=encoder))
    except RecursionError:
        return json.loads(json.dumps(clean(value), cls=encoder))


def clean(value: Any, depth: int = MAX_DEPTH) -> Any:
    """Return a copy of a value that can be encoded."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict | list | tuple | set | frozenset):
        if depth <= 0:
            return None
        # loops, because a comprehension would be one more level of recursion
        if isinstance(value, dict):
            members: dict[Any, Any] = {}
            for key, member in value.items():
                members[clean_text(key) if isinstance(key, str) else key] = clean(member, depth - 1)
            return members
        items: list[Any] = []
        for item in value:
            items.append(clean(item, depth - 1))  # noqa: PERF401
        return items
    if isinstance(value, msgspec.Struct):
        fields: dict[str, Any] = {}
        for name in value.__struct_fields__:
            fields[name] = clean(getattr(value, name), depth)
        return msgspec.structs.replace(value, **fields)
    return value


def clean_text(text: str) -> str:
    """Return a text in which lone surrogates are replaced; two that form a pair become one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text

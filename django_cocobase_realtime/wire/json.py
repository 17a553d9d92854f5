"""Parsing of JSON from clients, within limits.

msgspec's decoder accepts duplicate keys, NUL and integers beyond 2^53, and its recursion depends
on the nesting of the text. Therefore frames are parsed here before msgspec converts them to typed
values.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 16  # levels of nested objects and arrays in a frame
MAX_KEYS = 512  # keys of all objects in a frame
MAX_INT = 2**53  # above which JavaScript's numbers are not exact
MAX_INT_LENGTH = 17  # characters of MAX_INT with a sign


class InvalidJson(ValueError):
    """A text is not a JSON object within the limits. The message is for the client."""


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJson(f"{name} is not JSON; send null or a string.")


def _integer(text: str) -> int:
    # check the length first, since the time to convert an integer grows with its square
    if len(text) > MAX_INT_LENGTH or not -MAX_INT <= (value := int(text)) <= MAX_INT:
        raise InvalidJson("Integers beyond 2^53 lose digits in JSON; send them as strings.")
    return value


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidJson("A number is too large; send it as a string.")
    return value


class _KeyCounter:
    """Creates the objects of a frame; limits the number of keys, and refuses duplicate ones."""

    __slots__ = ("_count", "_limit")

    def __init__(self, limit: int) -> None:
        # keys of all objects so far
        self._count = 0
        self._limit = limit

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self._count += len(pairs)
        if self._count > self._limit:
            raise InvalidJson(f"A frame may have {self._limit} keys at most.")
        result = dict(pairs)
        if len(result) != len(pairs):
            raise InvalidJson("An object has the same key twice.")
        return result


def is_valid_text(text: str) -> bool:
    """Return whether PostgreSQL can store a text: it has neither NUL nor lone surrogates."""
    try:
        _check_text(text)
    except InvalidJson:
        return False
    return True


def _check_text(text: str) -> None:
    if "\0" in text:
        raise InvalidJson("Strings must not contain NUL.")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidJson("Strings must not contain lone surrogates.") from None


def _check_tree(root: dict[str, Any]) -> None:
    """Check the depth of a frame and all its texts, level by level, without recursion."""
    level: list[Any] = [root]
    for _depth in range(MAX_DEPTH):
        next_level: list[Any] = []
        for node in level:
            if isinstance(node, dict):
                for key in node:
                    _check_text(key)
                children: Any = node.values()
            else:
                children = node
            for child in children:
                if isinstance(child, str):
                    _check_text(child)
                elif isinstance(child, dict | list):
                    next_level.append(child)
        if not next_level:
            return
        level = next_level
    raise InvalidJson(f"A frame may be {MAX_DEPTH} levels deep at most.")


def parse_object(text: str, max_keys: int = MAX_KEYS) -> dict[str, Any]:
    """Return the JSON object in a text.

    Raises `InvalidJson` if the text is not JSON (RFC 8259) or not an object, if it has more than
    16 levels or ``max_keys`` keys, or if it contains duplicate keys, NUL, lone surrogates, NaN,
    Infinity, or integers beyond 2^53.
    """
    try:
        frame = json.loads(
            text,
            object_pairs_hook=_KeyCounter(max_keys),
            parse_constant=_refuse_constant,
            parse_int=_integer,
            parse_float=_float,
        )
    except InvalidJson:
        raise
    except RecursionError:
        raise InvalidJson(f"A frame may be {MAX_DEPTH} levels deep at most.") from None
    except ValueError:
        raise InvalidJson("The frame is not JSON.") from None
    if not isinstance(frame, dict):
        raise InvalidJson("A frame must be a JSON object.")
    _check_tree(frame)
    return frame

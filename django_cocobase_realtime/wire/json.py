"""From bytes a stranger sent to a JSON object that is safe to look at.

msgspec's own decoder accepts duplicate keys, NUL and integers beyond 2^53 and recurses on deep
nesting, so the frame is parsed here, bounded, before it is typed (see ``messages``).
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 16
MAX_KEYS = 512
MAX_INT = 2**53


class InvalidJson(ValueError):
    """The frame is not one JSON object within bounds. The message says what to mend."""


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJson(f"{name} is not JSON; send null or a string.")


def _integer(text: str) -> int:
    # len first: converting a million digits is quadratic
    if len(text) > 17 or not -MAX_INT <= (value := int(text)) <= MAX_INT:
        raise InvalidJson("Integers beyond 2^53 lose digits in JSON; send them as strings.")
    return value


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise InvalidJson("A number is too large; send it as a string.")
    return value


class _KeyCounter:
    """Counts keys over the whole frame and refuses duplicates."""

    __slots__ = ("most", "seen")

    def __init__(self, most: int) -> None:
        self.seen = 0
        self.most = most

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        self.seen += len(pairs)
        if self.seen > self.most:
            raise InvalidJson(f"A frame may have {self.most} keys at most.")
        found = dict(pairs)
        if len(found) != len(pairs):
            raise InvalidJson("An object names the same key twice.")
        return found


def is_valid_text(text: str) -> bool:
    """Whether a text has neither NUL, which PostgreSQL refuses, nor lone surrogates."""
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
    level: list[Any] = [root]
    for _depth in range(MAX_DEPTH):
        below: list[Any] = []
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
                    below.append(child)
        if not below:
            return
        level = below
    raise InvalidJson(f"A frame may be {MAX_DEPTH} levels deep at most.")


def parse_object(text: str, max_keys: int = MAX_KEYS) -> dict[str, Any]:
    """One text frame to its JSON object.

    Raises `BadFrame` for anything that is not JSON (RFC 8259), not an object, or out of bounds:
    deeper than 16 levels, more than ``max_keys`` keys, duplicate keys, NUL, lone surrogates, NaN
    and Infinity, integers beyond 2^53.
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

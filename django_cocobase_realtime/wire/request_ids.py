"""Reading the ``id`` of a request whose other contents break a rule.

Such a frame is refused, and a client must know which of its requests that was. The text is split
into tokens without recursion, so that a frame may be nested to any depth, and nothing but the outer
object and its ``id`` must be right.
"""

from __future__ import annotations

import json
import re
from itertools import islice
from typing import Any

from .json import MAX_INT, is_valid_text

MAX_ID_LENGTH = 64  # characters
# tokens at the start of an oversized frame in which the id is searched
MAX_HEAD_TOKENS = 64
# characters at the end of an oversized frame in which the id is searched
TAIL_LENGTH = 512

# a string, also one without an end; a bracket, comma or colon; or anything else, such as a number
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{},:]|[^\s"\[\]{},:]++', re.DOTALL)
# the last member of the outer object, if it is the id
_LAST_MEMBER = re.compile(r'[,{]\s*"id"\s*:\s*("(?:[^"\\]++|\\.)*+"|-?[0-9]+)\s*\}\s*\Z', re.DOTALL)
_INTEGER = re.compile(r"-?[0-9]{1,16}", re.ASCII)


def find_id(text: str) -> str | int | None:
    """Return the ``id`` of the JSON object in a text; None if it has none, or no valid one.

    The object must be complete.
    """
    id, is_complete = _search(text)
    return id if is_complete else None


def find_id_in_oversized(text: str) -> str | int | None:
    """Return the ``id`` if it stands at the start or the end of a text; else None.

    The time for it does not depend on the length of the text.
    """
    match = _LAST_MEMBER.search(text[-TAIL_LENGTH:])
    if match is not None:
        return _id_of(match[1])
    return _search(text[: MAX_HEAD_TOKENS * MAX_ID_LENGTH], MAX_HEAD_TOKENS)[0]


def _search(text: str, max_tokens: int | None = None) -> tuple[str | int | None, bool]:
    """Return the last id in the outer object, and whether the object has an end."""
    id: str | int | None = None
    depth, key, last = 0, "", ""
    for match in islice(_TOKEN.finditer(text), max_tokens):
        part = match[0]
        if not depth and part != "{":
            break
        if part in ("{", "["):
            depth += 1
        elif part in ("}", "]"):
            depth -= 1
            if not depth:
                return id, True
        elif depth == 1:
            if part == ":":
                key = last
            elif last == ":" and _string(key) == "id":
                id = _id_of(part)
        last = part
    return id, False


def _string(token: str) -> Any:
    """Return the text that a token stands for; None if it is no string."""
    if len(token) < 2 or token[0] != '"' or token[-1] != '"':
        return None
    try:
        return json.loads(token)
    except ValueError:
        return None


def _id_of(token: str) -> str | int | None:
    """Return the id that a token stands for; None if it is not valid."""
    if _INTEGER.fullmatch(token):
        number = int(token)
        return number if abs(number) <= MAX_INT else None
    text = _string(token)
    if text is None or len(text) > MAX_ID_LENGTH or not is_valid_text(text):
        return None
    return str(text)

"""The document that every server sends: about 250 bytes of JSON, and a frame around it."""

from __future__ import annotations

import json
import os
import time
from typing import Any

FILLER = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do"
FILLER += "x" * int(os.environ.get("BENCH_PAD") or 0)
AT = "2026-01-01T12:00:00.000000+00:00"


def data(number: int, classes: int) -> dict[str, Any]:
    """Event ``number``'s document. Its class decides every field that filters look at."""
    klass = number % classes
    return {
        "title": f"Post of class {klass:05}.",
        "body": f"#{number}@{time.monotonic_ns()}# {FILLER}",
        "status": f"s{klass}",
        "views": klass * 10 + 5,
        "owner": str(klass),
        "project": "default",
        "created_at": AT,
    }


def frame(number: int, classes: int) -> dict[str, Any]:
    """What clients get, of the same shape and size as our own frames."""
    return {
        "type": "event",
        "collection": "posts",
        "event": "updated",
        "document": {"id": "1", "data": data(number, classes)},
        "changed": ["body"],
        "subscriptions": ["posts"],
        "transaction": f"{number:032x}",
        "at": AT,
        "cursor": f"cG9zdHM.{number:032x}",
    }


def text(number: int, classes: int) -> str:
    """The frame as compact JSON."""
    return json.dumps(frame(number, classes), separators=(",", ":"))

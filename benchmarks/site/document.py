"""The document that every server sends, about 250 bytes of JSON, and its frame."""

from __future__ import annotations

import json
import os
import time
from typing import Any

FILLER = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do"
FILLER += (os.environ.get("BENCH_PAD_WITH") or "x") * int(os.environ.get("BENCH_PAD") or 0)
AT = "2026-01-01T12:00:00.000000+00:00"


def data(number: int, classes: int) -> dict[str, Any]:
    """Return the document of an event. Its class determines every field used by filters."""
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
    """Return the frame, with the shape and size of a realtime event frame."""
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
    """Return the frame as compact JSON."""
    return json.dumps(frame(number, classes), separators=(",", ":"))

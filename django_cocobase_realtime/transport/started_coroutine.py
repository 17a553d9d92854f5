"""Continuing a coroutine that was started without a task."""

from __future__ import annotations

import types
from collections.abc import Coroutine, Generator
from typing import Any


@types.coroutine
def resume(sending: Coroutine[Any, Any, None], yielded: Any) -> Generator[Any, Any, None]:
    """Continue a coroutine that was started with ``send(None)`` and has yielded ``yielded``."""
    while True:
        failure: BaseException | None = None
        result: Any = None
        try:
            result = yield yielded
        except BaseException as error:
            failure = error
        try:
            yielded = sending.send(result) if failure is None else sending.throw(failure)
        except StopIteration:
            return

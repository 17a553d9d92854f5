"""A real save in a thread of the server's process, as in a synchronous view."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from asgiref.sync import sync_to_async

from . import document


@cache
def _post() -> Any:
    from tests.app.models import Post

    return Post.objects.create(title="first")


def save(number: int, classes: int) -> int:
    """Save the post of an event. Return the monotonic time after the commit in nanoseconds."""
    post = _post()
    for name, value in document.data(number, classes).items():
        if name not in ("owner", "created_at"):
            setattr(post, name, value)
    post.save()
    return time.monotonic_ns()


asave = sync_to_async(save)

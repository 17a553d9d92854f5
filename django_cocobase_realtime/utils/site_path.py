"""Paths below the prefix of the site: FORCE_SCRIPT_NAME, or the ``root_path`` of the server."""

from __future__ import annotations

from django.core.handlers.asgi import get_script_prefix

from ..types import Scope


def path_in_site(scope: Scope) -> str:
    """Return the path without the prefix, which a proxy may have removed already.

    uvicorn adds the prefix again.
    """
    path: str = scope["path"]
    prefix = get_script_prefix(scope).rstrip("/")
    return path.removeprefix(prefix) if f"{path}/".startswith(f"{prefix}/") else path

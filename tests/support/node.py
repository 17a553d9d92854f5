"""Find Node and npm for the tests that need them."""

from __future__ import annotations

import os
import shutil

import pytest


def require_node(tool: str = "node") -> str:
    """Return the path of Node, or another tool. Without it, skip the test; in CI, fail it."""
    path = shutil.which(tool)
    if path is None:
        assert not os.environ.get("REQUIRE_SERVERS"), f"CI needs {tool}."
        pytest.skip(f"No {tool} on this machine.")
    return path

"""Node, where tests need one."""

from __future__ import annotations

import os
import shutil

import pytest


def need_node(tool: str = "node") -> str:
    """Its path. Skips the test where there is none; fails it where CI asks for one."""
    found = shutil.which(tool)
    if found is None:
        assert not os.environ.get("REQUIRE_SERVERS"), f"CI needs {tool}."
        pytest.skip(f"No {tool} on this machine.")
    return found

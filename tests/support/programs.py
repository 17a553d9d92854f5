"""Find the programs that some tests need."""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(name: str, title: str | None = None) -> str:
    """Return the path of a program. Without it, skip the test; in CI, fail it."""
    # Debian installs servers where the PATH of users does not lead
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if path is None:
        assert not os.environ.get("REQUIRE_SERVERS"), f"CI needs {title or name}."
        pytest.skip(f"No {title or name} on this machine.")
    return path

"""The path and the arguments of the system's Chromium, for the tests that need it."""

from __future__ import annotations

import os
import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


def require_chromium() -> None:
    """Skip the test if there is no Chromium; in CI, fail it."""
    if CHROMIUM is None:
        assert not os.environ.get("REQUIRE_BROWSER"), "CI needs Chromium."
        pytest.skip("No Chromium on this machine.")

"""The system's Chromium: which, how it is started, and what happens where there is none."""

from __future__ import annotations

import os
import shutil

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
]


def need_chromium() -> None:
    """Skip the test where there is none; fail it where CI asks for one."""
    if CHROMIUM is None:
        assert not os.environ.get("REQUIRE_BROWSER"), "CI needs Chromium."
        pytest.skip("No Chromium on this machine.")

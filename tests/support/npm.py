"""Packages of the npm registry that tests need, unmodified and outside of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

OPTIONS = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts"]


def package(name: str, version: str, *, required_by: str) -> Path:
    """The folder of a package, installed once on this machine.

    Where it cannot be had the test is skipped, and fails where the environment variable
    ``required_by`` is set.
    """
    home = Path(tempfile.gettempdir()) / f"realtime-npm-{name}-{version}"
    found = home / "node_modules" / name
    if not found.exists():
        for tool in ("node", "npm"):
            if shutil.which(tool) is None:
                _missing(f"There is no {tool} on this machine.", name, required_by)
        with tempfile.TemporaryDirectory(dir=home.parent) as folder:
            command = ["npm", "install", "--prefix", folder, *OPTIONS, f"{name}@{version}"]
            made = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
            if made.returncode:
                _missing(f"npm could not install it: {made.stderr[-300:]}", name, required_by)
            home.mkdir(exist_ok=True)
            try:
                Path(folder, "node_modules").rename(home / "node_modules")
            except OSError:  # another worker was faster
                assert found.exists()
    assert json.loads((found / "package.json").read_text())["version"] == version
    return found


def _missing(reason: str, name: str, required_by: str) -> None:
    assert not os.environ.get(required_by), f"CI needs the npm package {name}: {reason}"
    pytest.skip(reason)

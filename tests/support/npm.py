"""Install unmodified packages from the npm registry, outside of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

OPTIONS = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts"]


def install_package(name: str, version: str, *, required_by: str) -> Path:
    """Install a package once per machine and return its folder.

    If that is impossible, skip the test; fail it if the environment variable ``required_by`` is
    set.
    """
    home = Path(tempfile.gettempdir()) / f"realtime-npm-{name}-{version}"
    folder = home / "node_modules" / name
    if not folder.exists():
        for tool in ("node", "npm"):
            if shutil.which(tool) is None:
                _skip(f"There is no {tool} on this machine.", name, required_by)
        with tempfile.TemporaryDirectory(dir=home.parent) as temporary:
            command = ["npm", "install", "--prefix", temporary, *OPTIONS, f"{name}@{version}"]
            installed = subprocess.run(
                command, capture_output=True, text=True, timeout=100, check=False
            )
            if installed.returncode:
                _skip(f"npm could not install it: {installed.stderr[-300:]}", name, required_by)
            home.mkdir(exist_ok=True)
            try:
                Path(temporary, "node_modules").rename(home / "node_modules")
            except OSError:  # another worker has installed it
                assert folder.exists()
    assert json.loads((folder / "package.json").read_text())["version"] == version
    return folder


def _skip(reason: str, name: str, required_by: str) -> None:
    assert not os.environ.get(required_by), f"CI needs the npm package {name}: {reason}"
    pytest.skip(reason)

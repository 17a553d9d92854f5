"""Install unmodified packages from the npm registry, outside of the project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

OPTIONS = ["--no-audit", "--no-fund", "--no-save", "--ignore-scripts"]
INSTALL_TIMEOUT = 200.0


def install_package(name: str, version: str, *, required_by: str) -> Path:
    """Install a package once per machine and return its folder.

    If that is impossible, skip the test; fail it if the environment variable ``required_by`` is
    set.
    """
    return install_packages({name: version}, required_by=required_by) / name


def install_packages(versions: Mapping[str, str], *, required_by: str) -> Path:
    """Install several packages as ``install_package`` does and return the folder of them all."""
    names = [f"{name.replace('/', '-')}-{version}" for name, version in versions.items()]
    home = Path(tempfile.gettempdir()) / "-".join(["realtime-npm", *names])
    folder = home / "node_modules"
    if not folder.exists():
        for tool in ("node", "npm"):
            if shutil.which(tool) is None:
                _skip(f"There is no {tool} on this machine.", versions, required_by)
        with tempfile.TemporaryDirectory(dir=home.parent) as temporary:
            packages = [f"{name}@{version}" for name, version in versions.items()]
            command = ["npm", "install", "--prefix", temporary, *OPTIONS, *packages]
            installed = subprocess.run(
                command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT, check=False
            )
            if installed.returncode:
                reason = f"npm could not install it: {installed.stderr[-300:]}"
                _skip(reason, versions, required_by)
            home.mkdir(exist_ok=True)
            try:
                Path(temporary, "node_modules").rename(folder)
            except OSError:  # another worker has installed it
                assert folder.exists()
    for name, version in versions.items():
        description = json.loads((folder / name / "package.json").read_text())
        assert description["version"].removeprefix("v") == version
    return folder


def _skip(reason: str, versions: Mapping[str, str], required_by: str) -> None:
    names = ", ".join(versions)
    assert not os.environ.get(required_by), f"CI needs npm's {names}: {reason}"
    pytest.skip(reason)

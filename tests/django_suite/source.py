"""Django's tests, from the source package of the installed version."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Collection
from pathlib import Path

import django

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def tests_folder() -> Path:
    """Return the folder of ``runtests.py``. Downloads the source package once per version."""
    version = django.get_version()
    cache = CACHE / "django-cocobase-realtime"
    folder = cache / f"django-{version}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            shutil.move(_download(version, Path(temporary)), folder)
    return folder / "tests"


def folders(without: Collection[str]) -> list[str]:
    """Return the names of all folders with tests, but those that need GIS, or are left out."""
    left_out = {"import_error_package", "test_runner_apps", "gis_tests", *without}
    return sorted(
        folder.name
        for folder in tests_folder().iterdir()
        if (folder / "__init__.py").exists() and folder.name not in left_out
    )


def _download(version: str, into: Path) -> Path:
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    only_source = ["--no-deps", "--no-binary", "django", f"django=={version}"]
    subprocess.run([*pip, *only_source, "--dest", into], check=True)
    (archive,) = into.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    (folder,) = (path for path in into.iterdir() if path.is_dir())
    return folder

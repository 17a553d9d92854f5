"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.servers import AsgiServer, Redis

# how long an example takes says more about what else the machine does
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

pytest_plugins = ["django_cocobase_realtime.testing"]


@pytest.fixture
def api_key(transactional_db: None) -> str:
    """The plain text of a bare key of project "default"."""
    from django_cocobase_realtime.models import ApiKey

    return ApiKey.objects.create_key("test")[1]


@pytest.fixture
def user(transactional_db: None, django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("ada", password="secret")


@pytest.fixture
def redis() -> Iterator[Redis]:
    """A Redis of one's own, empty."""
    server = Redis()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def serve(transactional_db: None) -> Iterator[Callable[..., AsgiServer]]:
    """Start servers on the test's databases: ``serve("daphne", layers=..., settings=...)``."""
    servers: list[AsgiServer] = []

    def start(kind: str, **options: Any) -> AsgiServer:
        server = AsgiServer(kind, **options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session", autouse=True)
def _no_strays(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Threads of asynchronous tests leave connections open, which PostgreSQL minds."""
    yield
    from django.db import connection

    with django_db_blocker.unblock():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

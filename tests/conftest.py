"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.support.servers import AsgiServer, Redis

# the duration of an example depends mostly on the load of the machine
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

pytest_plugins = ["django_cocobase_realtime.testing"]


@pytest.fixture
def api_key(transactional_db: None) -> str:
    """Return the plain text of an API key without a user, of project "default"."""
    from django_cocobase_realtime.models import ApiKey

    return ApiKey.objects.create_key("test")[1]


@pytest.fixture(autouse=True)
def _forget_connection_rates() -> None:
    """Let tests open many connections, which all have one address."""
    from django_cocobase_realtime.consumers.connection_rate import connection_rates

    connection_rates.clear()


@pytest.fixture(autouse=True)
def _forget_failures() -> None:
    """Let each test log the failures that earlier tests have logged already."""
    from django_cocobase_realtime.utils.repeated_log import repeated_log

    repeated_log.clear()


@pytest.fixture
def user(transactional_db: None, django_user_model: Any) -> Any:
    return django_user_model.objects.create_user("ada", password="secret")


@pytest.fixture
def cookie(client: Any, user: Any) -> str:
    """Return the session cookie of ``user``, who is logged in."""
    client.force_login(user)
    return str(client.cookies["sessionid"].value)


@pytest.fixture
def redis() -> Iterator[Redis]:
    """An empty Redis for this test alone."""
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
def _close_stray_connections(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Close connections left open by threads, or PostgreSQL cannot drop the test database."""
    yield
    from django.db import connection

    with django_db_blocker.unblock():
        if connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                cursor.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

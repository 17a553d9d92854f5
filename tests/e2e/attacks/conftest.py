"""A server of each kind, whose log must have no traceback."""

import asyncio

import pytest

from .helpers import assert_no_traceback


@pytest.fixture(params=["daphne", "uvicorn"])
async def kind(request):
    return request.param


@pytest.fixture
async def start(serve, kind):
    """Start a server with settings: ``await start(COLLECTIONS={...})``."""
    servers = []

    async def start(**settings):
        server = await asyncio.to_thread(lambda: serve(kind, settings=settings))
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.kill()  # which would wait for threads if it was stopped
        assert_no_traceback(server)

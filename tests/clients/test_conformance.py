"""Both clients pass the same scenarios."""

import pytest

from tests.clients.drivers import NodeDriver
from tests.clients.python_driver import PythonDriver
from tests.clients.scenarios import JAVASCRIPT_SCENARIOS, SCENARIOS
from tests.clients.scripted_server import ScriptedServer

# scenarios wait for delays of several seconds
pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_python_client(name, monkeypatch):
    async with ScriptedServer() as server, PythonDriver(monkeypatch) as client:
        await SCENARIOS[name](server, client)


@pytest.mark.parametrize("name", JAVASCRIPT_SCENARIOS)
async def test_javascript_client(name):
    async with ScriptedServer() as server, NodeDriver() as client:
        await JAVASCRIPT_SCENARIOS[name](server, client)

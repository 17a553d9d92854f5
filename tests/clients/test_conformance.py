"""Both clients pass the same list."""

import pytest

from tests.clients.drivers import NodeDriver, PythonDriver
from tests.clients.scenarios import SCENARIOS
from tests.clients.scripted_server import Script

# their clock is set forward and their listeners are slow by design, not the machine's
pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_python(name, monkeypatch):
    async with Script() as server, PythonDriver(monkeypatch) as client:
        await SCENARIOS[name](server, client)


@pytest.mark.parametrize("name", SCENARIOS)
async def test_javascript(name):
    async with Script() as server, NodeDriver() as client:
        await SCENARIOS[name](server, client)

"""The session of an authenticated client."""

import pytest

from tests.protocol.runner import SessionRunner


@pytest.fixture
def runner():
    runner = SessionRunner()
    runner.receive({"type": "auth", "token": "t"})
    return runner

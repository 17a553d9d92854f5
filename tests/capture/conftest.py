"""Fixtures for tests of capture."""

import pytest

from tests.support import migrating


@pytest.fixture
def receive():
    """Connect signal receivers until the end of the test."""
    connected = []

    def connect(signal, sender, receiver):
        signal.connect(receiver, sender=sender, weak=False)
        connected.append((signal, sender, receiver))

    yield connect
    for signal, sender, receiver in connected:
        signal.disconnect(receiver, sender=sender)


@pytest.fixture
def project(tmp_path, settings):
    """A project whose migrations a test writes and applies."""
    with migrating.project(tmp_path, settings) as project:
        yield project

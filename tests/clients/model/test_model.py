"""Both clients keep their promises in random histories.

A failure names the seed. ``python -m tests.clients.model javascript 7`` runs the history of seed 7
again, and shortens it.
"""

import os

import pytest

from tests.clients.model.history import History, create_steps
from tests.clients.model.javascript_client import JavaScriptClient
from tests.clients.model.program import BrokenPromise
from tests.clients.model.python_client import PythonClient

HISTORIES = int(os.environ.get("HISTORIES", "1000"))
FIRST_SEED = int(os.environ.get("FIRST_SEED", "0"))

pytestmark = pytest.mark.timeout(60 + HISTORIES // 2)


@pytest.mark.parametrize("create", [PythonClient, JavaScriptClient])
def test_client_keeps_its_promises_in_random_histories(create):
    client = create()
    try:
        for seed in range(FIRST_SEED, FIRST_SEED + HISTORIES):
            try:
                History(client, seed).run(create_steps(seed))
            except BrokenPromise as broken:
                command = f"python -m tests.clients.model {client.language} {seed}"
                pytest.fail(f"{broken}\nTo run it again: {command}")
    finally:
        client.close()

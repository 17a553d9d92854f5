"""Random memberships and tickets: clients have exactly what the ORM would show their user."""

import asyncio
import contextlib
import os
import random

import pytest

from tests.support import tickets
from tests.support.rights_history import History, TicketClient, wait_for_same
from tests.support.threads import call
from tests.support.triggers import installed_triggers

pytestmark = pytest.mark.django_db(transaction=True)

HISTORIES = int(os.environ.get("RIGHTS_HISTORIES", "8"))
WRITES = 12


@pytest.fixture(params=["signals", "triggers"])
def capture(request, settings):
    tickets.declare(settings, capture=request.param)
    with installed_triggers() if request.param == "triggers" else contextlib.nullcontext():
        yield request.param


async def play(connect, history, random):
    """Write, with connected clients that come and go, and check what they are shown."""
    log = []
    async with contextlib.AsyncExitStack() as stack:
        clients, tasks = [], []
        for user in history.users:
            connection = await stack.enter_async_context(connect(user))
            options = {"transitions": random.random() < 0.7}
            client = TicketClient(connection, user, options)
            await client.subscribe()
            clients.append(client)
            tasks.append(asyncio.create_task(client.read()))
        for _ in range(WRITES):
            for _ in range(random.choice([1, 1, 3])):
                log.append(await call(history.write))
            if random.random() < 0.3:
                for client in clients:
                    await wait_for_same(client, history)
        for client in clients:
            await wait_for_same(client, history)
            assert client.find_leaks(history) == [], "\n".join(map(str, [*log, *client.frames]))
        for task in tasks:
            assert not task.done() or task.exception() is None
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("permission", list(tickets.CONDITIONS))
async def test_clients_have_what_the_orm_shows(realtime, settings, capture, permission):
    tickets.declare(settings, permission, capture)
    for seed in range(HISTORIES):
        print(f"seed {seed}")
        history = await call(History, seed, permission)
        await play(lambda user: realtime(user=user), history, random.Random(seed))

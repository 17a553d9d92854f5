"""Random memberships and tickets over real sockets: clients have what the ORM shows their user.

Two servers share the database and a Redis, and the writers are in another process. Sockets are cut
in the middle, and clients resume at either server. ``RIGHTS_SOCKET_HISTORIES`` is the number of
histories for each way of capture.
"""

import asyncio
import contextlib
import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections
from websockets.exceptions import ConnectionClosed

from django_cocobase_realtime.models import ApiKey
from tests.support import tickets
from tests.support.client import connect
from tests.support.rights_history import History, TicketClient, wait_for_same
from tests.support.threads import call
from tests.support.triggers import installed_triggers

pytestmark = [pytest.mark.server, pytest.mark.django_db(transaction=True)]

HISTORIES = int(os.environ.get("RIGHTS_SOCKET_HISTORIES", "3"))
FIRST_SEED = int(os.environ.get("RIGHTS_SOCKET_SEED", "0"))
WRITES = 12
PERMISSIONS = list(tickets.CONDITIONS)


class CutClient(TicketClient):
    """A client whose socket is cut now and then, and which resumes at some server."""

    def __init__(self, urls, token, user, choose, collection):
        super().__init__(None, user, {"transitions": choose.random() < 0.7}, collection)
        self._urls, self._token, self._choose = urls, token, choose
        # whether it has a whole snapshot, so that it may resume
        self._is_complete = False
        self.resumed = 0
        self._task = None
        self._stack = contextlib.AsyncExitStack()

    async def open(self):
        url = self._choose.choice(self._urls)
        self.client = await self._stack.enter_async_context(connect(url, self._token))
        self._page, self._parts = {}, []
        since = {}
        if self._is_complete and self.cursor is not None:
            since = {"since": self.cursor, "scope": self.scope}
        await self.subscribe(**since)
        self._is_complete = bool(self.frames[-1].get("resumed"))
        self.resumed += self._is_complete
        self._task = asyncio.create_task(self._read_until_closed())

    async def cut(self):
        """Cut the socket, also in the middle of a snapshot or a move, and open another one."""
        self.client.socket.transport.abort()
        await self.close()
        await self.open()

    async def close(self):
        if self._task is not None:
            await self._task
        await self._stack.aclose()

    def apply(self, frame):
        super().apply(frame)
        if frame["type"] == "resync":
            self._is_complete = False
        elif frame["type"] == "snapshot" and not frame["more"]:
            self._is_complete = True

    async def _read_until_closed(self):
        with contextlib.suppress(ConnectionClosed):
            await self.read()


@pytest.fixture(params=["signals", "triggers"])
def capture(request, settings):
    """Declare a collection for each permission, named like it."""
    collections = {}
    for permission in PERMISSIONS:
        tickets.declare(settings, permission, request.param)
        collections[permission] = settings.COCOBASE_REALTIME["COLLECTIONS"]["tickets"]
    settings.COCOBASE_REALTIME = {"COLLECTIONS": collections, "POLL": 0.5, "DRAIN": 0}
    with installed_triggers() if request.param == "triggers" else contextlib.nullcontext():
        yield request.param


async def play(run, urls, seed, permission):
    print(f"seed {seed}")
    history = await run(History, seed, permission)
    choose = random.Random(seed)
    log, clients = [], []
    for user in history.users:
        _, token = await run(lambda user=user: ApiKey.objects.create_key("k", user=user))
        clients.append(CutClient(urls, token, user, choose, permission))
    await asyncio.gather(*(client.open() for client in clients))
    try:
        for _ in range(WRITES):
            for _ in range(choose.choice([1, 1, 3])):
                log.append(await run(history.write))
            if choose.random() < 0.3:
                cut = choose.sample(clients, choose.choice([1, 3]))
                log.append([client.user.pk for client in cut])
                await asyncio.gather(*(client.cut() for client in cut))
            if choose.random() < 0.15:
                for client in clients:
                    await wait_for_same(client, history, 20, run)
        for client in clients:
            await wait_for_same(client, history, 20, run)
            leaks = client.find_leaks(history)
            assert leaks == [], "\n".join(map(str, [*log, *client.frames]))
    finally:
        for client in clients:
            client.client.socket.transport.abort()
        await asyncio.gather(*(client.close() for client in clients))
    return sum(client.resumed for client in clients)


async def test_clients_of_two_servers_have_what_the_orm_shows(serve, redis, settings, capture):
    settings.CHANNEL_LAYERS = layers = redis.layer("pubsub")
    options = settings.COCOBASE_REALTIME
    servers = await asyncio.gather(
        *(call(lambda: serve("uvicorn", layers=layers, settings=options)) for _ in "ab")
    )
    urls = [server.socket_url for server in servers]
    resumed, loop = 0, asyncio.get_running_loop()

    async def run(function, *args):
        return await loop.run_in_executor(thread, function, *args)

    # one thread, whose database connection is kept
    with ThreadPoolExecutor(1) as thread:
        for seed in range(FIRST_SEED, FIRST_SEED + HISTORIES):
            resumed += await play(run, urls, seed, PERMISSIONS[seed % len(PERMISSIONS)])
        await run(connections.close_all)
    assert resumed > 0

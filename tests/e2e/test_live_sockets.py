"""Live queries over real sockets: clients resume at another server when theirs is killed.

Two servers share the database and a Redis, and the writer is in another process. After every frame,
results are those of the log, and once nothing waits those of SQL; see `live_play`. The number of
histories is ``LIVE_SOCKET_HISTORIES``, and ``LIVE_SEED`` is the first seed.
"""

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import connections
from websockets.exceptions import ConnectionClosed

from django_cocobase_realtime.models import ApiKey
from tests.support import tasks
from tests.support.client import connect
from tests.support.live_history import History
from tests.support.live_play import Play, describing
from tests.support.threads import call
from tests.support.triggers import installed_triggers, is_postgres

pytestmark = [pytest.mark.server, pytest.mark.django_db(transaction=True)]

HISTORIES = int(os.environ.get("LIVE_SOCKET_HISTORIES", "1"))
FIRST_SEED = int(os.environ.get("LIVE_SEED", "0"))
STEPS = 8


@pytest.fixture
def _capture(settings):
    """Capture by triggers on PostgreSQL, and by signals on SQLite."""
    capture = "triggers" if is_postgres() else "signals"
    settings.COCOBASE_REALTIME = {**tasks.options(capture), "POLL": 0.5, "DRAIN": 0}
    with installed_triggers():
        yield


@pytest.fixture
def run():
    """Call functions in one thread, whose database connection is kept."""
    with ThreadPoolExecutor(1) as thread:

        async def run_in_thread(function, *args):
            return await asyncio.get_running_loop().run_in_executor(thread, function, *args)

        yield run_in_thread
        thread.submit(connections.close_all).result()


class KilledPlay(Play):
    """A history in which servers are killed, and clients resume at another one."""

    def __init__(self, servers, history, run):
        super().__init__(self.connect, history, run=run)
        self._servers = servers
        # those that are running
        self._running = list(servers)
        # servers by client
        self._servers_of, self._tokens = {}, {}

    @contextlib.asynccontextmanager
    async def connect(self, client):
        if client not in self._tokens:
            _, self._tokens[client] = await self._run(
                lambda: ApiKey.objects.create_key("live", user=client.user)
            )
        server = self._servers_of[client] = self.choose.choice(self._running)
        async with connect(server.socket_url, authenticate=False) as connection:
            yield Authenticating(connection, self._tokens[client])
            connection.socket.transport.abort()

    async def kill(self):
        """Kill a server, write, and let its clients resume at the other one."""
        server = self.choose.choice(self._servers)
        self.log.append(f"kill {self._servers.index(server)}")
        self._running.remove(server)
        await call(server.kill)
        for _ in range(3):
            self.log.append(await self._run(self.history.write))
        for client in self.clients:
            if self._servers_of[client] is server:
                await self.close(client)
                await self.open(client)
        await self.compare()


class Authenticating:
    """A connection that adds a token to ``auth``. Frames to a server that was killed are lost."""

    def __init__(self, connection, token):
        self._connection, self._token = connection, token
        self.receive = connection.receive

    async def send(self, frame):
        if frame["type"] == "auth":
            frame = {**frame, "token": self._token}
        with contextlib.suppress(ConnectionClosed):
            await self._connection.send(frame)


@pytest.mark.usefixtures("_capture")
async def test_clients_resume_at_another_server(serve, redis, settings, run):
    settings.CHANNEL_LAYERS = layers = redis.layer("pubsub")
    options = settings.COCOBASE_REALTIME
    servers = await asyncio.gather(
        *(call(lambda: serve("uvicorn", layers=layers, settings=options)) for _ in "ab")
    )
    for seed in range(FIRST_SEED, FIRST_SEED + HISTORIES):
        for server in servers:
            if not server.is_ready():  # killed before
                await call(server.start)
        history = await run(History, seed)
        play = KilledPlay(servers, history, run)
        try:
            async with asyncio.timeout(100):
                with describing(play, seed):
                    await play.run(STEPS, {STEPS // 2: play.kill})
        finally:
            await play.close_all()
        print(f"seed {seed}: {dict(play.counts)}")
        assert play.counts["resumed"] > 0

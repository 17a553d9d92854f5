"""Clients that do not read, for which any number of bytes waits in the server and below it."""

import asyncio
import os
import signal
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from django_cocobase_realtime.models import ApiKey
from tests.support.client import connect
from tests.support.narrow_sockets import open_narrow_socket
from tests.support.servers import other_servers
from tests.support.threads import call

pytestmark = pytest.mark.server
CLIENTS = 80
LIMITS = {
    **dict.fromkeys(("unauthenticated_per_address", "connections_per_address"), CLIENTS),
    "queue_bytes": 100_000_000,
    "event_bytes": 500_000,
}
CLOSE_TIMEOUT = 4.0


@asynccontextmanager
async def stalled_clients(server, key):
    """Open clients that stop reading before events, of which each gets one more than the last.

    The unsent bytes of some of them are in the buffers of the operating system only, those of
    others in the server's buffer too, below and above the size at which a send waits.
    """
    async with AsyncExitStack() as stack:
        for number in range(CLIENTS):
            client = await stack.enter_async_context(
                connect(
                    server.socket_url,
                    key,
                    compression=None,
                    ping_interval=None,
                    sock=open_narrow_socket(server.port, 4096),
                )
            )
            await client.subscribe("posts", filters={"views": {"lte": number}})
            transport = client.socket.transport
            transport.pause_reading()
            stack.callback(transport.abort)
        for number in range(CLIENTS):
            post = {"title": "large", "views": number, "body": "x" * 48_000}
            await call(server.post, "/posts", [post])
        await asyncio.sleep(1)
        yield


def count_descriptors(server):
    """Return the number of open files of the server's process, or of its newest child."""
    pid = server.process.pid
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        children = file.read().split()
    return len(os.listdir(f"/proc/{children[-1] if children else pid}/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Needs /proc.")
@pytest.mark.parametrize("kind", other_servers("uvicorn", "hypercorn", "granian"))
async def test_sockets_end_after_a_close_and_before_the_server(serve, kind):
    """gunicorn runs uvicorn, and daphne drops such sockets after a second."""
    revoked, key = [await call(ApiKey.objects.create_key, name) for name in "ab"]
    settings = {"DRAIN": 0.5, "LIMITS": LIMITS, "REVOCATION_POLL": 0.2}
    server = await call(lambda: serve(kind, settings=settings, close_timeout=CLOSE_TIMEOUT))
    before = count_descriptors(server)
    async with stalled_clients(server, revoked[1]):
        assert count_descriptors(server) - before >= CLIENTS
        await call(revoked[0].revoke)
        await asyncio.sleep(1.5)
        if kind != "granian":  # its sockets are not known
            async with connect(server.socket_url, authenticate=False) as refused:
                assert await refused.closed() == 4131
        await asyncio.sleep(CLOSE_TIMEOUT + 1)
        assert count_descriptors(server) - before < 10
    # nor are they counted any more
    async with stalled_clients(server, key[1]):
        server.signal(signal.SIGTERM)
        await call(server.process.wait, 6)
    log = server.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]

"""A scripted server in a thread, for tests that block."""

import asyncio
import threading

from tests.clients.scripted_server import ScriptedServer

TIMEOUT = 10


class Script:
    """Runs a scripted server, and the conversation with its clients, in another thread."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.server = ScriptedServer()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.do(self.server.__aenter__())
        self.url = self.server.url

    def do(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(TIMEOUT)

    def later(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self):
        self.do(self.server.__aexit__())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

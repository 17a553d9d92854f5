"""`websockets.broadcast` without compression, as in its documentation."""

import asyncio
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))

from websockets.asyncio.server import broadcast, serve

from benchmarks.site import control, document

sockets: dict[int, set] = {}


async def handler(websocket):
    control.listen(emit)
    klass = json.loads(await websocket.recv())["class"]
    sockets.setdefault(klass, set()).add(websocket)
    await websocket.send("ok")
    try:
        await websocket.wait_closed()
    finally:
        sockets[klass].discard(websocket)


def emit(message):
    classes = message["classes"]
    for number in control.numbers(message):
        broadcast(sockets.get(number % classes, ()), document.text(number, classes))


async def main(port):
    async with serve(handler, "127.0.0.1", port, compression=None, backlog=4096):
        await asyncio.get_running_loop().create_future()


asyncio.run(main(int(sys.argv[1])))

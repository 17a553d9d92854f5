"""A raw ASGI application that sends what a bell brings to each of its sockets.

The bell is NOTIFY of PostgreSQL, read on the event loop, or Redis pub/sub with ``BENCH_REDIS``. So
this is the least that a server can do between a commit and a socket.
"""

import asyncio
import os

from benchmarks.saver import BELL

sends: list = []
tasks: list = []


async def send_to_all(text):
    for send in sends:
        await send({"type": "websocket.send", "text": text})


def listen_to_postgres():
    import django

    django.setup()
    from django.db import connection

    connection.ensure_connection()
    connection.cursor().execute(f"LISTEN {BELL}")
    session = connection.connection.pgconn
    loop = asyncio.get_running_loop()

    def ready():
        session.consume_input()
        while (note := session.notifies()) is not None:
            task = loop.create_task(send_to_all(note.extra.decode()))
            tasks[:] = [task]

    loop.add_reader(session.socket, ready)


async def listen_to_redis(url):
    from redis.asyncio import from_url

    pubsub = from_url(url).pubsub()
    await pubsub.subscribe(BELL)

    async def read():
        async for message in pubsub.listen():
            if message["type"] == "message":
                await send_to_all(message["data"].decode())

    tasks.append(asyncio.get_running_loop().create_task(read()))


async def application(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    await receive()
    sends.append(send)
    if len(sends) == 1:
        if url := os.environ.get("BENCH_REDIS"):
            await listen_to_redis(url)
        else:
            os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"
            listen_to_postgres()
    await send({"type": "websocket.send", "text": "ok"})
    while (await receive())["type"] != "websocket.disconnect":
        pass
    sends.remove(send)

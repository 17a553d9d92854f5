"""A raw ASGI application that awaits ``send`` on each of its sockets in turn."""

import json
import os

from . import control, document

sockets: dict[int, list] = {}
if os.environ.get("BENCH_DJANGO"):
    from django.core.asgi import get_asgi_application

    get_asgi_application()


async def application(scope, receive, send):
    if scope["type"] != "websocket":
        return
    control.listen(emit)
    klass = None
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.receive":
            if klass is not None:
                sockets[klass].remove(send)
            klass = json.loads(message["text"])["class"]
            sockets.setdefault(klass, []).append(send)
            await send({"type": "websocket.send", "text": "ok"})
        else:
            if klass is not None:
                sockets[klass].remove(send)
            return


async def emit(message):
    classes = message["classes"]
    for number in control.numbers(message):
        if message.get("save"):
            from .save import asave

            message["reply"](number, await asave(number, classes))
        text = document.text(number, classes)
        for send in sockets.get(number % classes, ()):
            await send({"type": "websocket.send", "text": text})

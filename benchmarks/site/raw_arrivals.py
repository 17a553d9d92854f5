"""A raw ASGI application that answers each request with frames that another server has sent.

``BENCH_ANSWERS`` is a JSON array of the frames for the authentication, for a subscription, and for
one with a snapshot or a cursor.
"""

import json
import os

AUTHENTICATED, SUBSCRIBED, LONG = json.loads(os.environ["BENCH_ANSWERS"])


async def application(scope, receive, send):
    if scope["type"] != "websocket":
        return
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        request = json.loads(message["text"])
        if request["type"] == "auth":
            answers = AUTHENTICATED
        else:
            answers = LONG if "snapshot" in request or "since" in request else SUBSCRIBED
        for text in answers:
            await send({"type": "websocket.send", "text": text})

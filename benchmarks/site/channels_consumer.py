"""A Channels consumer: each connection joins a group and sends the messages of the group."""

import os

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from channels.layers import get_channel_layer
from django.core.asgi import get_asgi_application

from . import control, document

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.site.settings")
get_asgi_application()


class Consumer(AsyncJsonWebsocketConsumer):
    wanted = None

    async def connect(self):
        control.listen(emit)
        await self.accept()

    async def receive_json(self, content):
        group = "everyone"
        if content.get("grouped"):
            group = f"class-{content['class']}"
        elif content["classes"] > 1:
            self.wanted = f"s{content['class']}"
        await self.channel_layer.group_add(group, self.channel_name)
        await self.send(text_data="ok")

    async def document_changed(self, event):
        frame = event["frame"]
        if self.wanted is None or frame["document"]["data"]["status"] == self.wanted:
            await self.send_json(frame)


consumer = Consumer.as_asgi()


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await consumer(scope, receive, send)


async def emit(message):
    layer, classes = get_channel_layer(), message["classes"]
    for number in control.numbers(message):
        group = f"class-{number % classes}" if message.get("grouped") else "everyone"
        frame = document.frame(number, classes)
        await layer.group_send(group, {"type": "document.changed", "frame": frame})

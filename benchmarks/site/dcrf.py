"""djangochannelsrestframework: a model observer, each connection subscribed to it."""

import os

from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.site.settings")
get_asgi_application()

from asgiref.sync import sync_to_async  # noqa: E402
from djangochannelsrestframework.decorators import action  # noqa: E402
from djangochannelsrestframework.generics import GenericAsyncAPIConsumer  # noqa: E402
from djangochannelsrestframework.observer import model_observer  # noqa: E402
from djangochannelsrestframework.permissions import AllowAny  # noqa: E402
from rest_framework import serializers  # noqa: E402

from tests.app.models import Post  # noqa: E402

from . import control, document  # noqa: E402
from .save import asave  # noqa: E402

GROUPED = bool(os.environ.get("BENCH_GROUPED"))


class PostSerializer(serializers.ModelSerializer):
    class Meta:
        model = Post
        fields = ["id", "title", "body", "status", "views", "owner", "project", "created_at"]


class Consumer(GenericAsyncAPIConsumer):
    queryset = Post.objects.all()
    serializer_class = PostSerializer
    permission_classes = (AllowAny,)

    @model_observer(Post)
    async def post_activity(self, message, subscribing_request_ids=(), **kwargs):
        for request_id in subscribing_request_ids:
            await self.send_json({"message": message, "request_id": request_id})

    @post_activity.serializer
    def post_activity(self, instance, action, **kwargs):
        return {"data": PostSerializer(instance).data, "action": action.value}

    @post_activity.groups_for_signal
    def post_activity(self, instance, **kwargs):
        yield f"-status-{instance.status}" if GROUPED else "-all"

    @post_activity.groups_for_consumer
    def post_activity(self, status=None, **kwargs):
        yield f"-status-{status}" if GROUPED else "-all"

    @action()
    async def watch(self, request_id, status=None, **kwargs):
        control.listen(emit)
        await self.post_activity.subscribe(request_id=request_id, status=status)
        await self.send(text_data="ok")


consumer = Consumer.as_asgi()


async def application(scope, receive, send):
    if scope["type"] == "websocket":
        await consumer(scope, receive, send)


@sync_to_async
def signal(number, classes):
    """Send the signal of a save, without the save."""
    fields = document.data(number, classes)
    fields.update(owner=None)
    Consumer.post_activity.post_save_receiver(Post(pk=1, **fields), created=False)


async def emit(message):
    for number in control.numbers(message):
        if message.get("save"):
            message["reply"](number, await asave(number, message["classes"]))
        else:
            await signal(number, message["classes"])

"""django-cocobase-realtime. A trigger hands a change to the hub as the tailer does."""

import gc
import os

from django.core.asgi import get_asgi_application

from django_cocobase_realtime.routing import realtime_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "benchmarks.site.settings")
views = get_asgi_application()
realtime = realtime_application()
if os.environ.get("BENCH_COUNT_QUERIES"):
    from . import query_count

    query_count.install()
# as the guide for deployments recommends
gc.collect()
gc.freeze()


async def application(scope, receive, send):
    from . import control

    if scope["type"] == "websocket":
        control.listen(emit)
        await realtime(scope, receive, send)
    elif scope["type"] == "http":
        await views(scope, receive, send)


def emit(message):
    if message.get("save"):
        return _save(message)
    _hand_over(message)
    return None


async def _save(message):
    from .control import numbers
    from .save import asave

    for number in numbers(message):
        message["reply"](number, await asave(number, message["classes"]))


def _hand_over(message):
    from django_cocobase_realtime.events import Change, now
    from django_cocobase_realtime.hub.hub import Hub
    from django_cocobase_realtime.pubsub.broker import broker

    from . import document
    from .control import numbers

    hub = Hub.current()
    collection = message.get("collection", "posts")
    tailer = hub.topics.topics[collection].tailer
    changes = []
    for number in numbers(message):
        data = document.data(number, message["classes"])
        image = {"id": "1", **data, "updated_at": document.AT}
        change = Change(
            id=str(number),
            collection=collection,
            op="updated",
            document_id="1",
            transaction=f"{number:032x}",
            at=now(),
            before=image,
            after=image,
            changed=("body",),
            epoch=tailer.epoch,
            seq=tailer.seq + 1,
        )
        tailer.receive(change)
        changes.append(change)
    for change in changes:
        broker.publish_to_others(change)

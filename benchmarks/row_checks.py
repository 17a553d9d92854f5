"""The cost of permissions per event: a filter, a check of each row, and a query for each row.

``python -m benchmarks.row_checks [--subscribers 100] [--events 50]``. In one process, without
sockets: measures the time from an event's arrival until all frames are handed to the writers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import time
from types import SimpleNamespace

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

import django

django.setup()

from asgiref.sync import sync_to_async  # noqa: E402
from django.core.management import call_command  # noqa: E402

from django_cocobase_realtime import Collection  # noqa: E402
from django_cocobase_realtime.delivery.query import AuthorizedQuery  # noqa: E402
from django_cocobase_realtime.delivery.subscription import Subscription, SubscriptionRequest  # noqa: E402
from django_cocobase_realtime.delivery.topic import CollectionTopic  # noqa: E402
from django_cocobase_realtime.events import Change, now  # noqa: E402
from django_cocobase_realtime.identity import Identity  # noqa: E402
from django_cocobase_realtime.transport.connection import Connection  # noqa: E402
from tests.app.models import Item  # noqa: E402


class FilterPermission:
    def visible_to(self, identity):
        return {"size": {"lt": 10}}


class RowPermission:
    def has_object_permission(self, identity, item):
        return item.size < 10


class QueryPermission:
    def has_object_permission(self, identity, item):
        return Item.objects.filter(name__startswith="item", size__lt=10).exists()


async def measure(permission: type, subscribers: int, events: int) -> float:
    """Return the microseconds per subscriber and event."""
    cls = type("Items", (Collection,), {"model": Item, "permission": permission, "name": "items"})
    collection = cls()
    collection.__dict__["name"] = "items"
    topic = CollectionTopic(collection, lambda: None, lambda subscription: None)
    frames = 0

    def push(text: str) -> None:
        nonlocal frames
        frames += 1

    for number in range(subscribers):
        writer = SimpleNamespace(can_send_inline=False, push_event=lambda text, cursor: push(text))
        connection = Connection(str(number), writer, lambda code, retry_after_ms=None: None)
        connection.identity = Identity(f"key:{number}")
        grant = await sync_to_async(collection.grant)(connection.identity, {})
        view = AuthorizedQuery(grant.decision.visible, grant.fields, "", grant.decision.check)
        subscription = Subscription(connection, SubscriptionRequest("items", "items"), view)
        subscription.is_attached = True
        topic.table.add(subscription)
    image = {"id": "1", "name": "item", "size": 5}
    started = time.perf_counter()
    for number in range(events):
        id = str(number)
        topic.dispatch(Change(id, "items", "created", "1", id, now(), after=image))
        while frames < (number + 1) * subscribers:
            await asyncio.sleep(0)
    return (time.perf_counter() - started) / events / subscribers * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subscribers", type=int, default=100)
    parser.add_argument("--events", type=int, default=50)
    options = parser.parse_args()
    call_command("migrate", verbosity=0)
    Item.objects.get_or_create(name="item", defaults={"size": 5})
    first = None
    for permission in (FilterPermission, RowPermission, QueryPermission):
        cost = asyncio.run(measure(permission, options.subscribers, options.events))
        first = first or cost
        print(
            f"{permission.__name__:16} {cost:8.1f} us per subscriber and event {cost / first:6.1f}x"
        )


if __name__ == "__main__":
    main()

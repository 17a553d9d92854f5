"""The collection whose rows are read as of a position, and the positions of streams."""

import pytest

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.filters.order import Order, OrderField
from django_cocobase_realtime.log.cursor import Position
from django_cocobase_realtime.log.reader import stream_ranges
from django_cocobase_realtime.log.sequencer import sequence
from tests.app.models import Post
from tests.support.triggers import watching_by_triggers
from tests.support.watching import watching

CAPTURES = {"signals": watching, "triggers": watching_by_triggers}


@pytest.fixture(name="posts", params=CAPTURES)
def posts_fixture(request):
    """The collection of posts, by each way of capture."""
    with CAPTURES[request.param](Post, soft_delete={"project": "deleted"}):
        yield registry.get("post")


def by(*names):
    """Return the order by fields with these names."""
    return Order(tuple(OrderField(name.removeprefix("-"), name.startswith("-")) for name in names))


def head(stream="post"):
    """Return the position of the last event that has a number."""
    current = stream_ranges("default", [stream])[stream]
    return Position(current.epoch, current.head)


def numbered(stream="post"):
    """Number all events, and return the position of the last one."""
    while sequence("default", stream).more:
        pass
    return head(stream)

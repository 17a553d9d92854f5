"""Read the log of the test's database."""

from django_cocobase_realtime.log.reader import read_events
from django_cocobase_realtime.log.sequencer import sequence
from django_cocobase_realtime.models import Stream


def read_all(collection="posts"):
    """Number all events and return them."""
    while sequence("default", collection).more:
        pass
    stream = Stream.objects.get(collection=collection)
    return read_events("default", collection, stream.epoch, stream.floor, 10**6)

"""The streams of the log, and the server processes that follow them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from asgiref.sync import async_to_sync
from django.db.models import Count, Min
from django.utils import timezone

from ..declarations.registry import registry
from ..models import LogEvent, Stream
from ..utils.concurrency import run_in_threadpool
from .records import FollowerInfo, StreamInfo
from .requests import DEFAULT_TIMEOUT, request_all

# events from which the rate of a stream is estimated at most
RATE_EVENTS = 1000
# seconds of the rate
RATE_PERIOD = 60


async def astreams(*, timeout: float = DEFAULT_TIMEOUT) -> list[StreamInfo]:
    """Return the streams of all databases, in the order of their names."""
    stored, followers = await asyncio.gather(
        run_in_threadpool(_read_streams), request_all("followers", FollowerInfo, timeout)
    )
    return _join(stored, followers)


def streams(*, timeout: float = DEFAULT_TIMEOUT) -> list[StreamInfo]:
    """Return the same as `astreams`, for synchronous code."""
    followers = async_to_sync(request_all)("followers", FollowerInfo, timeout)
    return _join(_read_streams(), followers)


def _read_streams() -> list[tuple[str, Stream, int, int]]:
    """Return the streams with their database, number of events without a number, and rate."""
    return [
        (using, stream, _count_unnumbered(using, stream), _rate(using, stream))
        for using in registry.log_databases()
        for stream in Stream.objects.using(using).order_by("collection")
    ]


def _count_unnumbered(using: str, stream: Stream) -> int:
    events = LogEvent.objects.using(using)
    return events.filter(collection=stream.collection, seq__isnull=True).count()


def _rate(using: str, stream: Stream) -> int:
    """Return the number of events of the last minute, from at most `RATE_EVENTS` of them."""
    now = timezone.now()
    recent = LogEvent.objects.using(using).filter(
        collection=stream.collection,
        seq__gt=max(stream.floor, stream.head - RATE_EVENTS),
        created_at__gt=now - timedelta(seconds=RATE_PERIOD),
    )
    values = recent.aggregate(count=Count("pk"), first=Min("created_at"))
    if values["count"] < RATE_EVENTS:
        return int(values["count"])
    seconds: float = max((now - values["first"]).total_seconds(), 1.0)
    return round(RATE_EVENTS * RATE_PERIOD / seconds)


def _join(
    stored: list[tuple[str, Stream, int, int]], followers: list[FollowerInfo]
) -> list[StreamInfo]:
    positions: dict[str, list[FollowerInfo]] = {}
    for follower in followers:
        positions.setdefault(follower.stream, []).append(follower)
    described: list[StreamInfo] = []
    for using, stream, unnumbered, rate in stored:
        known = positions.get(stream.collection, [])
        lags = [stream.head - f.seq for f in known if f.epoch == stream.epoch]
        described.append(
            StreamInfo(
                name=stream.collection,
                database=using,
                epoch=stream.epoch,
                head=stream.head,
                floor=stream.floor,
                unnumbered=unnumbered,
                rate=rate,
                followers=len({f.server for f in known}),
                lag=max([0, *lags]),
            )
        )
    return sorted(described, key=lambda stream: (stream.name, stream.database))

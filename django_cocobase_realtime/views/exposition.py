"""The metrics of this process, in the text format of Prometheus.

All series have the label ``process``, the id of the process, because a request is answered by one
of several processes. Nothing is kept between two requests: the numbers are those of `metrics` and
`hub.measures` at the time of the request.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..delivery.aggregate_query import AggregateState
from ..delivery.row_permissions import stats
from ..hub.measures import Measures
from ..log.reader import StreamRange
from ..metrics import Histogram, metrics
from ..pubsub.broker import broker
from ..utils.limits import connection_counters
from ..utils.workers import count_waiting

if TYPE_CHECKING:
    from prometheus_client import Metric

PREFIX = "cocobase_realtime_"
# label of the close code of connections that the client closed
CLOSED_BY_CLIENT = "client"


class State(NamedTuple):
    """The state of this process, as far as it is not in `metrics`."""

    measures: Measures
    # the last events in the log, by alias of the database and name of the stream, as far as known
    heads: Mapping[str, Mapping[str, StreamRange]]


# values by the values of the labels; a single value has none
Values = Mapping[tuple[str, ...], float | Histogram]


class Family(NamedTuple):
    """A metric, and how its values are determined."""

    # without `PREFIX`
    name: str
    # "counter", "gauge" or "histogram"
    kind: str
    about: str
    read: Callable[[State], float | Histogram | Values]
    labels: tuple[str, ...] = ()

    @property
    def full_name(self) -> str:
        """The name of the metric in queries; that of a histogram has ``_bucket`` behind it."""
        return PREFIX + self.name + ("_total" if self.kind == "counter" else "")

    def values(self, state: State) -> Values:
        """Return the values by those of the labels."""
        value = self.read(state)
        return value if isinstance(value, Mapping) else {(): value}


def _pairs(counter: Mapping[tuple[str, str], int]) -> Values:
    return {(first, second): number for (first, second), number in counter.items()}


def _single(counter: Mapping[str, float | Histogram]) -> Values:
    return {(key,): value for key, value in counter.items()}


def _closes(state: State) -> Values:
    return {
        (CLOSED_BY_CLIENT if code is None else str(int(code)),): number
        for code, number in list(metrics.closes.items())
    }


def _lags(state: State) -> Values:
    lags: dict[tuple[str, ...], float | Histogram] = {}
    for using, positions in state.measures.positions.items():
        for stream, position in positions.items():
            head = state.heads.get(using, {}).get(stream)
            if head is not None and position.epoch:
                start = position.seq if position.epoch == head.epoch else 0
                lags[using, stream] = max(head.head - start, 0)
    return lags


FAMILIES = (
    Family("connections", "gauge", "Authenticated connections.", lambda s: s.measures.connections),
    Family(
        "sockets",
        "gauge",
        "Open WebSockets, also those that are not authenticated or are being closed.",
        lambda s: connection_counters.total,
    ),
    Family(
        "connections_opened",
        "counter",
        "Connections that were authenticated.",
        lambda s: metrics.connections_opened,
    ),
    Family(
        "closes",
        "counter",
        "Connections that ended, by close code; code=client if the client closed.",
        _closes,
        ("code",),
    ),
    Family(
        "refusals",
        "counter",
        "Requests that were answered with an error, and subscriptions that ended with one.",
        lambda s: _single(dict(metrics.refusals)),
        ("code",),
    ),
    Family(
        "subscriptions",
        "gauge",
        "Live subscriptions; kind is events, window or aggregate.",
        lambda s: _pairs(s.measures.subscriptions),
        ("collection", "kind"),
    ),
    Family(
        "subscriptions_starting",
        "gauge",
        "Subscriptions that read a snapshot, a replay or a result, and are not live yet.",
        lambda s: s.measures.starting,
    ),
    Family(
        "cohorts",
        "gauge",
        "Groups of subscriptions for which an event is matched and encoded once.",
        lambda s: _single(s.measures.cohorts),
        ("collection",),
    ),
    Family(
        "live_queries",
        "gauge",
        "Results that are kept up to date; kind is window or aggregate.",
        lambda s: _pairs(s.measures.live_queries),
        ("collection", "kind"),
    ),
    Family("rooms", "gauge", "Rooms that a connection has joined.", lambda s: s.measures.rooms),
    Family(
        "room_memberships",
        "gauge",
        "Rooms of all connections.",
        lambda s: s.measures.memberships,
    ),
    Family(
        "queue_bytes",
        "gauge",
        "Bytes that wait for clients that do not read fast enough.",
        lambda s: s.measures.queue_bytes,
    ),
    Family(
        "queue_bytes_largest",
        "gauge",
        "Bytes that wait for the client for which most do.",
        lambda s: s.measures.largest_queue_bytes,
    ),
    Family(
        "events_captured",
        "counter",
        "Events that writes of the ORM have recorded, also if they were rolled back.",
        lambda s: metrics.captured,
    ),
    Family(
        "events_numbered",
        "counter",
        "Events that this process has numbered after their commit.",
        lambda s: metrics.numbered,
    ),
    Family(
        "events_delivered",
        "counter",
        "Events that were sent to live subscriptions, counted once per subscription.",
        lambda s: metrics.delivered,
    ),
    Family(
        "events_filtered",
        "counter",
        "Events that live subscriptions to the same collection did not get.",
        lambda s: metrics.filtered,
    ),
    Family(
        "events_replayed",
        "counter",
        "Events that were sent from the log to subscriptions that had missed them.",
        lambda s: metrics.replayed,
    ),
    Family(
        "commit_to_socket_seconds",
        "histogram",
        "Seconds from the write of an event until it was sent to the sockets of this process.",
        lambda s: metrics.commit_to_socket,
    ),
    Family(
        "stream_lag_events",
        "gauge",
        "Numbered events that this process has not delivered yet.",
        _lags,
        ("database", "stream"),
    ),
    Family(
        "resumes",
        "counter",
        "Subscriptions and rooms that clients resumed; outcome is resumed, or why they could not.",
        lambda s: _pairs(dict(metrics.resumes)),
        ("of", "outcome"),
    ),
    Family(
        "layer_failures",
        "counter",
        "Calls of the channel layer that failed; operation is send, receive or join.",
        lambda s: _single(dict(metrics.layer_failures)),
        ("operation",),
    ),
    Family(
        "layer_dropped_events",
        "counter",
        "Events that the channel layer did not accept.",
        lambda s: broker.dropped,
    ),
    Family(
        "worker_wait_seconds",
        "histogram",
        "Seconds that calls have waited for a worker thread.",
        lambda s: _single(dict(metrics.worker_waits)),
        ("pool",),
    ),
    Family(
        "worker_waiting",
        "gauge",
        "Calls that wait for a worker thread.",
        lambda s: _single(count_waiting()),
        ("pool",),
    ),
    Family(
        "object_permissions_waiting",
        "gauge",
        "Events that wait for has_object_permission.",
        lambda s: stats.waiting,
    ),
    Family(
        "aggregate_differences",
        "counter",
        "Aggregates that were not those of the rows when they were counted again.",
        lambda s: AggregateState.differences,
    ),
    Family(
        "window_reads",
        "counter",
        "Reads of rows for windows; rows is all, or refill for those behind the known ones.",
        lambda s: _single(dict(metrics.window_reads)),
        ("rows",),
    ),
)


def render(state: State, accept: str) -> tuple[bytes, str]:
    """Return the metrics, in the format that an ``Accept`` header asks for, and the media type.

    Raises `ImportError` without prometheus-client.
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(state))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collector:
    """A collector of prometheus-client."""

    def __init__(self, state: State) -> None:
        self._state = state

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        for family in FAMILIES:
            yield _metric(family, family.values(self._state), str(os.getpid()))


def _metric(family: Family, values: Values, process: str) -> Metric:
    from prometheus_client import core

    classes: dict[str, Any] = {
        "counter": core.CounterMetricFamily,
        "gauge": core.GaugeMetricFamily,
        "histogram": core.HistogramMetricFamily,
    }
    labels = (*family.labels, "process")
    metric = classes[family.kind](PREFIX + family.name, family.about, labels=labels)
    for key, value in values.items():
        if isinstance(value, Histogram):
            metric.add_metric((*key, process), list(_buckets(value)), value.sum)
        else:
            metric.add_metric((*key, process), value)
    result: Metric = metric
    return result


def _buckets(histogram: Histogram) -> Iterable[tuple[str, int]]:
    """Yield the bounds of buckets, and how many values are not above each."""
    total = 0
    for bound, count in zip((*histogram.bounds, "+Inf"), list(histogram.counts), strict=True):
        total += count
        yield str(bound), total

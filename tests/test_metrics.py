"""The endpoint ``GET metrics``: who may read it, and what it shows."""

import json
import re
import sys

import pytest
from asgiref.sync import sync_to_async
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.db import DatabaseError
from django.test import AsyncClient
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from django_cocobase_realtime.metrics import Histogram, metrics
from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.pubsub.broker import OutboxEntry, broker
from django_cocobase_realtime.utils.limits import KeyedRate
from django_cocobase_realtime.views import base
from django_cocobase_realtime.views.exposition import FAMILIES, PREFIX
from tests.app.models import Post
from tests.docs.test_reference import DOCS, rows

URL = "/realtime/metrics"
TOKEN = "a-token-of-more-than-20-characters"


@pytest.fixture(autouse=True)
def _clear(monkeypatch):
    metrics.clear()
    monkeypatch.setattr(base, "_rates", KeyedRate())


@pytest.fixture
def token(settings):
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "METRICS_TOKEN": TOKEN}


async def get(token=TOKEN, **headers):
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    return await AsyncClient().get(URL, headers=headers)


async def read():
    """Return the values as Prometheus reads them, by name and labels without the process."""
    response = await get()
    assert response.status_code == 200
    values = {}
    for family in text_string_to_metric_families(response.content.decode()):
        for sample in family.samples:
            labels = {key: value for key, value in sample.labels.items() if key != "process"}
            assert sample.labels["process"].isdigit()
            values[(sample.name.removeprefix(PREFIX), *labels.values())] = sample.value
    return values


# who may read it


@pytest.mark.django_db
async def test_metrics_do_not_exist_for_others_if_there_is_no_token(transactional_db):
    for credential in (None, TOKEN, "None", ""):
        response = await get(credential)
        assert (response.status_code, response.json()) == (404, {"detail": "Not found."})


async def test_metrics_need_the_token(transactional_db, token):
    key = await sync_to_async(ApiKey.objects.create_key)("other")
    for credential in (None, "x" * 30, TOKEN + "x", TOKEN[:-1], key[1], "é" * 30):
        response = await get(credential)
        assert response.status_code == 401
        assert TOKEN not in response.content.decode()
    response = await get()
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    assert (await AsyncClient().post(URL)).status_code == 405


@pytest.mark.parametrize("value", ["short", 12345678901234567890123, b"x" * 30])
async def test_a_token_that_can_be_guessed_is_a_mistake(transactional_db, settings, value):
    from django_cocobase_realtime.conf import conf

    settings.COCOBASE_REALTIME = {"METRICS_TOKEN": value}
    (problem,) = conf.problems("METRICS_TOKEN")
    assert problem.message.endswith("must be a string of 20 characters or more, or None.")
    client = AsyncClient(raise_request_exception=False)
    response = await client.get(URL, headers={"Authorization": f"Bearer {value}"})
    assert response.status_code == 500


def test_staff_with_the_permission_may_read_metrics(client, user, admin_user):
    content_type = ContentType.objects.get_for_model(ApiKey)
    permission, _ = Permission.objects.get_or_create(
        codename="view_connections", defaults={"content_type": content_type, "name": "View"}
    )
    client.force_login(user)
    assert client.get(URL).status_code == 404
    user.user_permissions.add(permission)
    assert client.get(URL).status_code == 404
    user.is_staff = True
    user.save()
    response = client.get(URL)
    assert response.status_code == 200
    assert b"cocobase_realtime_connections{" in response.content
    user.user_permissions.clear()
    assert client.get(URL).status_code == 404
    client.force_login(admin_user)
    assert client.get(URL).status_code == 200


async def test_requests_with_wrong_tokens_are_limited(transactional_db, settings):
    settings.COCOBASE_REALTIME = {"METRICS_TOKEN": TOKEN, "LIMITS": {"http_rate": (1, 2)}}
    assert [(await get("x" * 30)).status_code for _ in range(3)] == [401, 401, 429]


async def test_missing_prometheus_client_is_reported(transactional_db, token, monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert (await get("x" * 30)).status_code == 401
    response = await get()
    assert response.status_code == 501
    assert "django-cocobase-realtime[metrics]" in response.json()["detail"]


# the formats


async def test_prometheus_reads_all_metrics(transactional_db, token):
    response = await get()
    assert response["Content-Type"].startswith("text/plain; version=")
    families = list(text_string_to_metric_families(response.content.decode()))
    kinds = {family.name: family.type for family in families}
    assert kinds == {PREFIX + family.name: family.kind for family in FAMILIES}
    abouts = {family.name: family.documentation for family in families}
    assert abouts == {PREFIX + family.name: family.about for family in FAMILIES}


async def test_openmetrics_is_sent_on_request(transactional_db, token):
    response = await get(Accept="application/openmetrics-text; version=1.0.0")
    assert response["Content-Type"].startswith("application/openmetrics-text")
    families = openmetrics.text_string_to_metric_families(response.content.decode())
    assert {family.name for family in families} == {PREFIX + family.name for family in FAMILIES}


def test_histogram_counts_values_by_size():
    histogram = Histogram((0.1, 1.0))
    for value in (0.0, 0.1, 0.2, 5.0):
        histogram.observe(value)
    assert (histogram.counts, histogram.count, histogram.sum) == ([2, 1, 1], 4, 5.3)
    histogram.clear()
    assert (histogram.counts, histogram.sum) == ([0, 0, 0], 0.0)


async def test_metrics_are_shown_without_the_lag_if_the_database_does_not_answer(
    realtime, user, token, monkeypatch
):
    async with realtime(user=user) as client:
        await client.subscribe("posts")
        assert (await read())["stream_lag_events", "default", "posts"] == 0

        def fail(using, names):
            raise DatabaseError("gone")

        monkeypatch.setattr("django_cocobase_realtime.views.metrics.stream_ranges", fail)
        values = await read()
        assert values["connections",] == 1
        assert not [key for key in values if key[0] == "stream_lag_events"]


# what they count


@sync_to_async
def create(*views):
    for number in views:
        Post.objects.create(title="x", views=number)


async def test_events_are_counted_from_the_write_to_the_socket(realtime, user, token):
    async with realtime(user=user) as ada, realtime(user=user) as other:
        await ada.subscribe("posts", filters={"views_gte": 5})
        await ada.subscribe("messages")
        await other.subscribe("posts")
        await create(1, 5, 9)
        for client, number in ((ada, 2), (other, 3)):
            for _ in range(number):
                await client.receive("event")
        values = await read()
    assert values["events_captured_total",] == 3
    assert values["events_numbered_total",] == 3
    assert values["events_delivered_total",] == 5
    assert values["events_filtered_total",] == 1
    assert values["commit_to_socket_seconds_count",] == 3
    assert 0 < values["commit_to_socket_seconds_sum",] < 60
    assert values["commit_to_socket_seconds_bucket", "+Inf"] == 3
    assert values["stream_lag_events", "default", "posts"] == 0
    assert values["connections",] == values["sockets",] == 2
    assert values["connections_opened_total",] == 2
    assert values["subscriptions", "posts", "events"] == 2
    assert values["cohorts", "posts"] == 2
    assert values["queue_bytes",] == values["subscriptions_starting",] == 0
    assert values["worker_wait_seconds_count", "worker"] > 0
    assert values["worker_waiting", "worker"] == 0


async def test_every_event_is_delivered_or_filtered_once_per_subscription(
    realtime, user, token, settings
):
    """Several subscriptions of a connection, transitions, and permissions of objects."""
    path = "tests.test_metrics.EvenPosts"
    settings.COCOBASE_REALTIME = settings.COCOBASE_REALTIME | {
        "COLLECTIONS": {
            "posts": "app.Post",
            "even": {"model": "app.Post", "permission": path},
        }
    }
    async with realtime(user=user) as client:
        for number in range(3):
            await client.subscribe(
                "posts", subscription=f"s{number}", filters={"views_gte": 2 * number}
            )
        await client.subscribe("posts", subscription="t", filters={"views": 1}, transitions=True)
        await client.subscribe("even")
        await create(0, 1, 2, 3)
        for _ in range(4 + 2):
            await client.receive("event")
        values = await read()
    # those with views from 0, 2 and 4, exactly 1, and even ones
    assert values["events_delivered_total",] == 4 + 2 + 0 + 1 + 2
    assert values["events_delivered_total",] + values["events_filtered_total",] == 4 * 5


class EvenPosts:
    """Shows posts with an even number of views."""

    def has_object_permission(self, identity, instance):
        return instance.views % 2 == 0


async def test_resumes_closes_and_refusals_are_counted(realtime, user, token):
    async with realtime(user=user) as client:
        cursor = (await client.subscribe("posts"))["cursor"]
        await client.request({"type": "subscribe", "collection": "nothing"})
        await client.request({"type": "join", "room": ""})
    await create(1, 2)
    async with realtime(user=user) as client:
        assert (await client.subscribe("posts", since=cursor))["resumed"]
        for _ in range(2):
            await client.receive("event")
        await client.subscribe("posts", since="x", subscription="other")
        reply = await client.join("hall", since="x")
        assert reply["resumed"] is False
    with pytest.raises(AssertionError, match="authentication_failed"):
        async with realtime(token="wrong"):
            pass
    values = await read()
    assert values["resumes_total", "subscription", "resumed"] == 1
    assert values["resumes_total", "subscription", "invalid_cursor"] == 1
    assert values["resumes_total", "room", "not_kept"] == 1
    assert values["events_replayed_total",] == 2
    assert values["closes_total", "client"] == 2
    assert values["closes_total", "4500"] == 1
    assert values["refusals_total", "unknown_collection"] == 1
    assert values["refusals_total", "authentication_failed"] == 1
    assert values["connections",] == 0


async def test_live_queries_are_counted(realtime, user, token):
    async with realtime(user=user) as client:
        window = {"limit": 2, "order": "-views"}
        for name, options in (
            ("w", {"window": window}),
            ("v", {"window": window | {"limit": 1}}),
            ("a", {"aggregate": {"sum": ["views"]}}),
        ):
            await client.subscribe("posts", subscription=name, **options)
            await client.receive()
        values = await read()
    assert values["subscriptions", "posts", "window"] == 2
    assert values["live_queries", "posts", "window"] == 1
    assert values["subscriptions", "posts", "aggregate"] == 1
    assert values["live_queries", "posts", "aggregate"] == 1
    assert values["window_reads_total", "all"] == 1


async def test_failures_of_the_channel_layer_are_counted(transactional_db, token, monkeypatch):
    class FailingLayer:
        async def group_send(self, group, message):
            raise ConnectionError("no Redis")

    monkeypatch.setattr(
        "django_cocobase_realtime.pubsub.broker.channel_layer", lambda: FailingLayer()
    )
    before = broker.dropped
    assert not await broker._group_send([OutboxEntry("g", b"x"), OutboxEntry("g", b"y")])
    values = await read()
    assert values["layer_failures_total", "send"] == 1
    assert values["layer_dropped_events_total",] == before + 2


# what the documentation has


def test_metrics_are_documented():
    documented = {row[0]: row[1:] for row in rows("metrics.md", None)}
    assert set(documented) == {family.full_name for family in FAMILIES}
    for family in FAMILIES:
        kind, labels, _ = documented[family.full_name]
        assert kind == family.kind
        assert tuple(re.findall(r"\w+", labels)) == family.labels


def test_dashboard_shows_existing_metrics():
    dashboard = json.loads((DOCS / "files" / "grafana.json").read_text())
    assert dashboard["schemaVersion"] >= 36
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) > 10
    places = [
        (panel["gridPos"]["x"], panel["gridPos"]["y"], panel["gridPos"]["w"])
        for panel in dashboard["panels"]
    ]
    assert len(set(places)) == len(places)
    assert all(x + w <= 24 for x, _, w in places)
    names = set()
    for family in FAMILIES:
        suffixes = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
        names |= {family.full_name + suffix for suffix in suffixes}
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    shown = set()
    for panel in dashboard["panels"]:
        assert panel["type"] in ("timeseries", "stat")
        for target in panel["targets"]:
            queried = set(re.findall(rf"{PREFIX}\w+", target["expr"]))
            assert queried
            assert queried <= names, target["expr"]
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables | {"__rate_interval"}
            assert target["expr"].count("(") == target["expr"].count(")")
            shown |= queried
    # all of them are on the dashboard
    for family in FAMILIES:
        assert any(name.startswith(family.full_name) for name in shown), family.name

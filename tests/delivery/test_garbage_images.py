"""Images of the log that today's fields refuse, and a log that something else has damaged.

A client that comes back with its cursor gets what follows. Otherwise it would be closed again at
the same event, over and over.
"""

import logging
from types import SimpleNamespace

import pytest
from asgiref.sync import sync_to_async
from django.db.models.signals import post_init
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from django_cocobase_realtime.conf import conf
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.declarations.soft_delete import apply_soft_delete
from django_cocobase_realtime.delivery import replay
from django_cocobase_realtime.delivery.event_frames import ChangeFrames
from django_cocobase_realtime.delivery.incomplete_images import find_undecidable, restore
from django_cocobase_realtime.delivery.query import authorize_query
from django_cocobase_realtime.delivery.row_permissions import evaluate
from django_cocobase_realtime.delivery.subscription import Subscription, SubscriptionRequest
from django_cocobase_realtime.delivery.table import SubscriptionTable
from django_cocobase_realtime.events import Change, decode, encode
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.models import LogEvent
from django_cocobase_realtime.transport.connection import NATIVE, Connection
from django_cocobase_realtime.wire.commands import Subscribe
from tests.app.models import Diner, Everything, LongKey, Patient, Post, Seat, UuidThing
from tests.support.frames import receive_title
from tests.support.triggers import is_postgres

MODELS = [Everything, Patient, Seat, UuidThing, LongKey, Post, Diner]
if is_postgres():
    from tests.postgres_app.models import Arrays, Ranges, Store

    MODELS += [Arrays, Ranges, Store]

TEXTS = ("abc", "1e999", "2026-13-45", "[1,5)", '{"bounds": 1}', "NaN", "9" * 5000, "\0", "")
KEYS = ("float", "bytes", "decimal", "datetime", "json", "uuid", "timedelta", "lower")
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(TEXTS)
    | st.text(st.characters(codec="utf-8"), max_size=5),
    lambda values: (
        st.lists(values, max_size=2)
        | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=2), values, max_size=2)
    ),
    max_leaves=3,
)
# filters that compare the value in all ways
OPERATORS = ("in", "notin", "gt", "lte", "contains", "startswith", "isnull")


@pytest.fixture
def without_log():
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


def make_filters(collection, name):
    """Return filters by one field, with each operator that takes one of these operands."""
    for operator in OPERATORS:
        for operand in (True, 1, "1", "2026-01-01", "2026-01-01T00:00", "::1", "00" * 16):
            try:
                yield collection.parse_trusted_filter({name: {operator: operand}})
            except Exception:
                continue


def subscribe(collection, filter, transitions):
    identity = Identity("key:1")
    connection = Connection("1", SimpleNamespace(), lambda code, retry_after_ms=None: None)
    connection.identity, connection.dialect = identity, NATIVE
    command = Subscribe(collection=collection.name, transitions=transitions)
    grant = collection.grant(identity, {})
    query = authorize_query(conf.limits, command, grant, identity)
    if filter is not None:
        object.__setattr__(query, "filter", query.filter & filter)
    request = SubscriptionRequest(collection.name, collection.name, transitions=transitions)
    return Subscription(connection, request, query)


@pytest.mark.django_db
@pytest.mark.parametrize("permission", [None, "ReadsEverything"])
@pytest.mark.parametrize("model", MODELS)
def test_garbage_in_any_field_is_delivered_replayed_and_checked(
    model, permission, settings, without_log
):
    declared = {"model": model._meta.label}
    if permission is not None:
        declared["permission"] = f"tests.support.permissions.{permission}"
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"c": declared}}
    collection = registry.get("c")
    names = list(collection.codec.fields)
    subscriptions = [
        subscribe(collection, filter, transitions)
        for name in names
        for filter in (None, *make_filters(collection, name))
        for transitions in (False, True)
    ]
    if permission is not None:
        subscriptions = subscriptions[:2]
    table = SubscriptionTable(collection.schema)
    for subscription in subscriptions:
        table.add(subscription)
    images = st.fixed_dictionaries(dict.fromkeys(names, VALUES))

    @hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
    @given(images, images, st.sampled_from(["created", "updated", "deleted"]))
    def deliver(before, after, op):
        change = Change(
            "1",
            "c",
            op,
            "1",
            "t",
            "2026-01-01T00:00:00+00:00",
            epoch="a",
            seq=1,
            before=None if op == "created" else before,
            after=None if op == "deleted" else after,
            changed=(names[-1],) if op == "updated" else None,
        )
        # through the channel layer
        received = decode(encode(change))
        visible = apply_soft_delete(collection.decode(received), collection)
        table.find_recipients(visible)
        deliveries = evaluate(collection, visible, table.find_row_checked(visible))
        ChangeFrames(visible, 10_000).texts(deliveries)
        # from the log
        for logged in restore(collection, [received]):
            find_undecidable(collection, logged, [subscriptions[0].query])
            for event, delivery in replay._find_deliveries(
                collection, table, subscriptions[0], logged
            ):
                ChangeFrames(event, 10_000, replayed=True).texts([delivery])

    deliver()


@pytest.mark.django_db
@pytest.mark.parametrize("model", MODELS)
def test_garbage_in_the_field_of_soft_deletes_is_read(model, settings, without_log):
    def declare(**options):
        declared = {"model": model._meta.label, **options}
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"c": declared}}
        return registry.get("c")

    for name in declare().codec.fields:
        collection = declare(soft_delete=name)

        def read(before, after):
            images = {"before": {name: before}, "after": {name: after}}  # noqa: B023
            change = Change("1", "c", "updated", "1", "t", "", **images)
            apply_soft_delete(collection.decode(change), collection)  # noqa: B023

        hypothesis_settings(max_examples=10, deadline=None)(given(VALUES, VALUES)(read))()


# with clients


@pytest.fixture
def posts(settings):
    def declare(permission=None):
        declared = {"model": "app.Post"}
        if permission is not None:
            declared["permission"] = f"tests.support.permissions.{permission}"
        settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": declared}, "LOG": {"POLL": 0.2}}

    return declare


async def receive_titles(client, until):
    titles = []
    while until not in titles:
        frame = await client.receive()
        if frame["type"] == "event":
            titles.append(frame["document"].get("data", {}).get("title"))
    return titles


@pytest.mark.django_db(transaction=True)
async def test_row_that_the_database_refuses_hides_itself_alone(realtime, api_key, posts):
    posts("RefusedByDatabase")
    async with realtime(token=api_key) as client:
        cursor = (await client.subscribe("posts"))["cursor"]
        for title in ("bad", "good"):
            await Post.objects.acreate(title=title)
        assert await receive_title(client) == "good"
    async with realtime(token=api_key) as client:
        assert (await client.subscribe("posts", since=cursor))["resumed"] is True
        assert await receive_title(client) == "good"
        await client.subscribe("posts", snapshot=True)
        documents = (await client.receive("snapshot"))["documents"]
        assert [document["data"]["title"] for document in documents] == ["good"]


@pytest.mark.django_db(transaction=True)
async def test_row_of_which_no_instance_can_be_made_is_hidden(realtime, api_key, posts):
    """Receivers of `post_init`, as of packages that track fields, may raise an exception."""
    posts("FewViews")

    def refuse(instance, **kwargs):
        if "title" in vars(instance) and instance.title == "bad" and instance.pk is not None:
            raise RuntimeError("This receiver does not know the value.")

    async with realtime(token=api_key) as client:
        cursor = (await client.subscribe("posts"))["cursor"]
        post_init.connect(refuse, sender=Post)
        try:
            for title in ("bad", "good"):
                await Post.objects.acreate(title=title)
            assert await receive_title(client) == "good"
            async with realtime(token=api_key) as other:
                await other.subscribe("posts", since=cursor)
                assert await receive_title(other) == "good"
        finally:
            post_init.disconnect(refuse, sender=Post)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("permission", [None, "ReadsEverything"])
@pytest.mark.parametrize("values", [{"views": "abc"}, {"created_at": "soon"}, {"owner": {"a": 1}}])
async def test_value_that_todays_field_refuses_is_replayed_as_it_is(
    realtime, api_key, posts, values, permission
):
    posts(permission)
    async with realtime(token=api_key) as client:
        cursor = (await client.subscribe("posts"))["cursor"]
    await Post.objects.acreate(title="old")
    await sync_to_async(change_images)(values)
    await Post.objects.acreate(title="next")
    async with realtime(token=api_key) as client:
        assert (await client.subscribe("posts", since=cursor))["resumed"] is True
        event = await client.receive("event")
        # the permission gets the row as it is now, for what it does not find in the image
        assert event["document"]["data"] | values == event["document"]["data"]
        assert await receive_title(client) == "next"


def change_images(values):
    import json

    for event in LogEvent.objects.all():
        image = json.loads(event.after) | values
        LogEvent.objects.filter(pk=event.pk).update(after=json.dumps(image))


DAMAGED = (
    "",
    "{",
    "5",
    "null",
    '"text"',
    "{}x",
    '{"title": 1e999}',
    '{"a":' * 3000 + "1" + "}" * 3000,
)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("text", DAMAGED)
async def test_damaged_event_does_not_keep_the_following_back(realtime, api_key, posts, text):
    posts()
    async with realtime(token=api_key) as client:
        cursor = (await client.subscribe("posts"))["cursor"]
    await Post.objects.acreate(title="damaged")
    await sync_to_async(LogEvent.objects.update)(after=text, changed=text)
    await Post.objects.acreate(title="next")
    for _ in range(2):  # once they are numbered, and once they are read again
        async with realtime(token=api_key) as client:
            assert (await client.subscribe("posts", since=cursor))["resumed"] is True
            assert (await receive_titles(client, "next"))[-1] == "next"

"""Aggregates: counts, sums, averages and extremes, which the server keeps up to date."""

import asyncio
import logging
from threading import Event

import pytest
from django.db import connection as database
from django.db import transaction

from django_cocobase_realtime import notify_change, permissions_changed
from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.delivery import aggregate_query
from django_cocobase_realtime.delivery.aggregate_query import AggregateState, _Read
from django_cocobase_realtime.hub import background_tasks
from django_cocobase_realtime.live_queries.fold import Fold
from django_cocobase_realtime.live_queries.queries import AggregateQuery
from django_cocobase_realtime.log.cursor import Position
from tests.app.models import Author, Post
from tests.relations_app.models import Ticket
from tests.support import tickets
from tests.support.aggregates import AggregateClient
from tests.support.tenants import Tenant
from tests.support.threads import call

pytestmark = pytest.mark.django_db(transaction=True)


def create(*views, **fields):
    return [Post.objects.create(title=f"post {v}", views=v, **fields) for v in views]


@pytest.fixture
def reads(monkeypatch):
    """The groups of each read, None for all; ``reads.gate`` is set unless a test holds them."""

    class Reads(list):
        gate = Event()

    reads = Reads()
    reads.gate.set()
    read = AggregateState._read

    def counted(self, filter, groups, position):
        reads.append(groups)
        assert reads.gate.wait(10)
        return read(self, filter, groups, position)

    monkeypatch.setattr(AggregateState, "_read", counted)
    return reads


@pytest.fixture
def verified(monkeypatch):
    """Aggregates are verified all the time."""
    monkeypatch.setattr(background_tasks, "VERIFY_INTERVAL", 0.05)
    monkeypatch.setattr(AggregateState, "differences", 0)


async def test_count_is_known_from_the_first_frame_on(realtime, api_key):
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"count": True})
        assert client.only == {"count": 0}
        for expected in (1, 2):
            await call(create, 1)
            frame = await client.receive()
            assert client.only == {"count": expected}
            assert "reset" not in frame
        await call(Post.objects.all().delete)
        await client.receive()
        await client.receive()
        assert client.only == {"count": 0}


async def test_groups_that_change_are_sent_alone(realtime, api_key):
    await call(lambda: [create(1, 2), create(5, status="published"), create(3, project="x")])
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        numbers = {"sum": ["views"], "avg": ["rating"], "min": ["views"], "max": ["views"]}
        await client.start({**numbers, "group_by": ["status", "project"]})
        assert client.groups == {
            ("draft", "default"): {
                "key": {"status": "draft", "project": "default"},
                "count": 2,
                "sum": {"views": 3},
                "avg": {"rating": {"sum": None, "n": 0}},
                "min": {"views": 1},
                "max": {"views": 2},
            },
            ("published", "default"): {
                "key": {"status": "published", "project": "default"},
                "count": 1,
                "sum": {"views": 5},
                "avg": {"rating": {"sum": None, "n": 0}},
                "min": {"views": 5},
                "max": {"views": 5},
            },
            ("draft", "x"): {
                "key": {"status": "draft", "project": "x"},
                "count": 1,
                "sum": {"views": 3},
                "avg": {"rating": {"sum": None, "n": 0}},
                "min": {"views": 3},
                "max": {"views": 3},
            },
        }
        await call(lambda: Post.objects.filter(views=5).update(status="draft", rating="1.5"))
        frame = await client.receive()
        assert frame["groups"] == [
            {"key": {"status": "published", "project": "default"}, "count": 0},
            client.groups["draft", "default"],
        ]
        assert client.groups["draft", "default"]["avg"] == {"rating": {"sum": "1.50", "n": 1}}
        assert client.counts == {("draft", "default"): 3, ("draft", "x"): 1}


async def test_null_and_foreign_keys_are_groups(realtime, api_key):
    author = await call(Author.objects.create)
    await call(lambda: [create(1, 2), create(3, author=author)])
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"group_by": ["author"]})
        assert client.counts == {None: 2, str(author.pk): 1}
        await call(author.delete)
        await client.receive()
        assert client.counts == {None: 3}


async def test_changes_that_alter_nothing_send_nothing(realtime, api_key):
    await call(create, 1, 2)
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"max": ["views"], "group_by": ["status"]})
        await call(lambda: Post.objects.filter(views=1).update(title="new"))
        await call(lambda: Post.objects.filter(views=1).update(views=0))
        assert await connection.receive_nothing()
        assert len(client.frames) == 1


async def test_only_rows_that_match_are_counted(realtime, api_key):
    await call(create, 1, 5, 6)
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"sum": ["views"]}, filters={"views_gte": 5})
        assert client.only == {"count": 2, "sum": {"views": 11}}
        await call(lambda: Post.objects.filter(views=1).update(views=7))
        await client.receive()
        assert client.only == {"count": 3, "sum": {"views": 18}}
        await call(lambda: Post.objects.filter(views=5).update(views=4))
        await client.receive()
        await call(lambda: Post.objects.filter(views=6).update(views=8))
        await client.receive()
        assert client.only == {"count": 2, "sum": {"views": 15}}


async def test_aggregates_of_one_document(realtime, api_key):
    first, _ = await call(create, 1, 5)
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"sum": ["views"]}, document=str(first.pk))
        await call(lambda: Post.objects.update(views=9))
        await client.receive()
        assert client.only == {"count": 1, "sum": {"views": 9}}


# extremes


async def test_extreme_that_leaves_is_read_of_its_group_alone(realtime, api_key, reads):
    await call(lambda: [create(1, 2, 3), create(7, status="published")])
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"max": ["views"], "group_by": ["status"]})
        await call(lambda: Post.objects.filter(views=3).delete())
        await client.receive()
        assert client.groups["draft",]["max"] == {"views": 2}
        assert reads == [None, (("draft",),)]
        assert len(client.frames) == 2


async def test_extreme_deleted_twice_in_one_transaction(realtime, api_key, reads):
    await call(create, 1, 2, 3)
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"max": ["views"], "min": ["views"]})

        def delete():
            with transaction.atomic():
                Post.objects.filter(views=3).delete()
                Post.objects.filter(views=2).delete()

        await call(delete)
        seen = [(await client.receive())["groups"][0] for _ in range(2)]
        assert [(group["count"], group["max"]["views"]) for group in seen] == [(2, 2), (1, 1)]


async def test_changes_wait_while_an_extreme_is_read(realtime, api_key, reads):
    await call(create, *range(6))
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"max": ["views"]})
        reads.gate.clear()
        await call(lambda: [Post.objects.filter(views=v).delete() for v in (5, 4, 0)])
        await call(create, 9)
        assert await connection.receive_nothing()
        reads.gate.set()
        expected = [(5, 4), (4, 3), (3, 3), (4, 9)]
        for count, greatest in expected:
            await client.receive()
            assert client.only == {"count": count, "max": {"views": greatest}}


async def test_old_values_that_are_unknown_have_all_rows_counted(realtime, api_key, reads):
    posts = await call(create, 1, 2)
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"sum": ["views"]})

        def write():
            with transaction.atomic():
                with database.cursor() as cursor:
                    cursor.execute("UPDATE app_post SET views = 10 WHERE views = 2")
                notify_change("posts", "updated", posts[1])

        await call(write)
        await client.receive()
        assert client.only == {"count": 2, "sum": {"views": 11}}
        assert reads == [None, None]


async def test_rows_that_count_as_deleted_are_left_out(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "soft_delete": {"project": "deleted"}}}
    }
    posts = await call(lambda: create(1, 2) + create(4, project="deleted"))
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"sum": ["views"]})
        assert client.only == {"count": 2, "sum": {"views": 3}}
        await call(lambda: Post.objects.filter(views=2).update(project="deleted"))
        await client.receive()
        assert client.only == {"count": 1, "sum": {"views": 1}}
        await call(lambda: Post.objects.filter(views=4).update(project="default", views=8))
        await client.receive()
        assert client.only == {"count": 2, "sum": {"views": 9}}

        def write():
            with transaction.atomic():
                with database.cursor() as cursor:
                    cursor.execute(
                        "UPDATE app_post SET project = 'deleted', views = 0 WHERE views = 8"
                    )
                notify_change("posts", "updated", posts[2])

        await call(write)
        await client.receive()
        assert client.only == {"count": 1, "sum": {"views": 1}}


# sharing


async def test_clients_share_one_fold_and_one_frame(realtime, api_key, reads, monkeypatch):
    await call(create, 1)
    made = []
    encode = aggregate_query.aggregate_parts
    monkeypatch.setattr(
        aggregate_query, "aggregate_parts", lambda *a, **k: made.append(a) or encode(*a, **k)
    )
    async with realtime(token=api_key) as one, realtime(token=api_key) as two:
        clients = [AggregateClient(connection) for connection in (one, two)]
        for client in clients:
            await client.start({"count": True})
        assert reads == [None]
        made.clear()
        await call(create, 1)
        frames = [await client.receive() for client in clients]
        assert frames[0] == frames[1]
        assert len(made) == 1
        assert len(str(frames[0])) < 160


async def test_another_filter_or_query_replaces_all_groups(realtime, api_key):
    await call(create, 1, 2)
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"count": True})
        await client.start({"count": True}, filters={"views": 1})
        assert client.frames[-1]["reset"]
        assert client.only == {"count": 1}
        await client.start({"group_by": ["views"]})
        assert client.frames[-1]["reset"]
        assert client.counts == {1: 1, 2: 1}


async def test_long_results_are_sent_in_parts(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "LIMITS": {"event_bytes": 1000}}
    await call(create, *range(60))
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"group_by": ["views"]})
        assert len(client.frames) > 2
        assert all(len(str(frame)) < 1300 for frame in client.frames)
        assert [frame.get("reset", False) for frame in client.frames].count(True) == 1
        assert client.counts == dict.fromkeys(range(60), 1)
        await call(lambda: Post.objects.filter(views=0).update(views=1))
        await client.receive()
        assert client.counts == {1: 2} | dict.fromkeys(range(2, 60), 1)


async def test_too_many_groups_end_the_subscription(realtime, api_key, settings, caplog):
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "LIMITS": {"groups": 3}}
    await call(create, 1, 2, 3)
    async with realtime(token=api_key) as one, realtime(token=api_key) as two:
        client, other = AggregateClient(one), AggregateClient(two)
        await client.start({"group_by": ["views"]})
        await other.start({"count": True})
        await call(create, 4)
        error = await one.receive()
        assert (error["type"], error["code"]) == ("error", "limit_exceeded")
        assert error["subscription"] == "a"
        assert "3 groups" in error["message"]
        await other.receive()
        assert other.only == {"count": 4}
        # another one is refused, too, and the connection remains
        await client.subscribe({"group_by": ["views"]})
        assert (await one.receive())["code"] == "limit_exceeded"
        await client.start({"group_by": ["status"]})
        assert client.counts == {"draft": 4}
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


# requests


WRONG = [
    ({"aggregate": {"sum": ["title"]}}, "sum 'title' is not allowed; use some of ['"),
    ({"aggregate": {"avg": ["nothing"]}}, "avg 'nothing' is not allowed"),
    ({"aggregate": {"max": ["created_at"]}}, "max 'created_at' is not allowed"),
    ({"aggregate": {"min": ["author"]}}, "min 'author' is not allowed"),
    ({"aggregate": {"group_by": ["meta"]}}, "group_by 'meta' is not allowed"),
    ({"aggregate": {"group_by": ["author.name"]}}, "group_by 'author.name' is not allowed"),
    ({"aggregate": {"sum": ["views", "views"]}}, "twice"),
    (
        {"aggregate": {"group_by": ["title", "body", "status", "views", "rating", "author"]}},
        "5 fields",
    ),
    ({"aggregate": {"count": False}}, "count"),
    ({"aggregate": {"total": ["views"]}}, "unknown field"),
    ({"aggregate": {}, "window": {}}, "window"),
    ({"aggregate": {}, "fields": ["views"]}, "fields"),
    ({"aggregate": {}, "snapshot": True}, "snapshot"),
    ({"aggregate": {}, "transitions": True}, "transitions"),
    ({"aggregate": {}, "changed": ["views"]}, "changed"),
    ({"aggregate": {}, "events": ["created"]}, "events"),
]


async def test_wrong_requests_are_refused(realtime, api_key):
    async with realtime(token=api_key) as connection:
        for request, words in WRONG:
            frame = await connection.request(
                {"type": "subscribe", "collection": "posts", **request}
            )
            assert (frame["type"], frame["code"]) == ("error", "bad_request"), request
            assert words in frame["message"]


async def test_declared_fields_are_aggregated_alone(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {
                "model": "app.Post",
                "fields": ["title"],
                "filters": ["status"],
                "aggregates": ["created_at", "title", "rating"],
            }
        }
    }
    posts = await call(create, 1, 2)
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"max": ["created_at", "title"], "group_by": ["status"]})
        assert client.groups["draft",]["max"] == {
            "created_at": posts[1].created_at.isoformat(),
            "title": "post 2",
        }
        for wrong in ({"sum": ["views"]}, {"group_by": ["title"]}, {"sum": ["title"]}):
            frame = await connection.request(
                {"type": "subscribe", "collection": "posts", "aggregate": wrong}
            )
            assert "is not allowed" in frame["message"]


@pytest.mark.parametrize("option", ["durable", "track"])
async def test_collection_without_old_values_has_no_aggregates(realtime, api_key, settings, option):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": {"model": "app.Post", option: False}}}
    async with realtime(token=api_key) as connection:
        frame = await connection.request(
            {"type": "subscribe", "collection": "posts", "aggregate": {}}
        )
        assert frame["code"] == "bad_request"
        assert "aggregate is not available" in frame["message"]


# resuming


@pytest.mark.parametrize("status", ["published", "draft"])
async def test_resumes_with_all_groups_if_a_row_that_matches_has_changed(realtime, api_key, status):
    await call(create, 1, 2)
    async with realtime(token=api_key) as connection:
        old = AggregateClient(connection)
        await old.start({"sum": ["views"]}, filters={"status": "draft"})
    await call(lambda: create(5, status=status))
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        client.groups = old.groups
        options = {"since": old.cursor, "scope": old.scope, "filters": {"status": "draft"}}
        reply = await client.subscribe({"sum": ["views"]}, **options)
        assert reply["resumed"]
        frame = await client.receive()
        assert frame["type"] == ("aggregate" if status == "draft" else "cursor")
        await call(create, 4)
        await client.receive()
        total = 12 if status == "draft" else 7
        assert client.only["sum"] == {"views": total}


# rights


@pytest.fixture
def tenant(user, settings):
    tickets.declare(settings)
    return Tenant(user)


async def test_rights_that_change_are_differences(realtime, tenant, user):
    await call(lambda: Ticket.objects.create(title="more", project=tenant.kept))
    kept, lost = str(tenant.kept.pk), str(tenant.lost.pk)
    async with realtime(user=user) as connection:
        client = AggregateClient(connection, "tickets")
        await client.start({"group_by": ["project"]})
        assert client.counts == {kept: 2, lost: 1}
        scope = client.scope
        await call(tenant.remove)
        frame = await client.receive()
        assert frame["groups"] == [{"key": {"project": lost}, "count": 0}]
        assert "reset" not in frame
        assert client.scope not in (None, scope)
        await call(tenant.add, tenant.lost)
        await client.receive()
        assert client.counts == {kept: 2, lost: 1}
        assert client.scope == scope


async def test_fields_that_may_not_be_read_any_more_close_the_connection(
    realtime, user, settings, monkeypatch
):
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "permission": "tests.delivery.test_aggregates.Fields"}
        }
    }
    for request in ({"sum": ["views"]}, {"group_by": ["views"]}):
        monkeypatch.setattr(Fields, "names", ["title", "views"])
        async with realtime(user=user) as connection:
            client = AggregateClient(connection)
            await client.start(request)
            Fields.names = ["title"]
            await call(permissions_changed, user)
            assert (await connection.receive("closing"))["code"] == 4201
        async with realtime(user=user) as connection:
            frame = await connection.request(
                {"type": "subscribe", "collection": "posts", "aggregate": request}
            )
            assert "is not allowed" in frame["message"]


class Fields:
    """A permission whose readable fields the test changes."""

    names = ()

    def can_subscribe(self, identity, filters):
        return True

    def fields_for(self, identity):
        return self.names


# regular verification


async def test_aggregates_are_corrected_after_changes_that_are_not_captured(
    realtime, api_key, verified, caplog
):
    await call(create, 1, 2)
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"group_by": ["views"]})

        def write():
            with database.cursor() as cursor:
                cursor.execute("UPDATE app_post SET views = 10 WHERE views = 2")

        await call(write)
        await client.receive()
        assert client.counts == {1: 1, 10: 1}
        await call(create, 10)
        await client.receive()
        assert client.counts == {1: 1, 10: 2}
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.message for record in errors] == [
        "Aggregates of collection 'posts' were not those of its rows, and were corrected. Rows "
        "were probably changed in a way that is not captured."
    ]
    assert AggregateState.differences == 1


async def test_verification_of_correct_aggregates_is_silent(
    realtime, api_key, verified, reads, caplog
):
    async with realtime(token=api_key) as connection:
        client, other = AggregateClient(connection, name="a"), AggregateClient(connection, name="b")
        await client.start({"max": ["views"], "group_by": ["status"]})
        await other.start({"sum": ["rating"]})
        for n in range(40):
            await call(lambda n=n: create(n, rating=n) and None)
            for _ in range(2):
                frame = await connection.receive()
                (client if frame["subscription"] == "a" else other).apply(frame)
            await asyncio.sleep(0.02)  # so that it takes as long as several verifications
    assert len(reads) > 4
    assert len(client.frames) == len(other.frames) == 41
    assert other.only == {"count": 40, "sum": {"rating": "780.00"}}
    assert AggregateState.differences == 0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_aggregates_of_another_position_are_not_compared(transactional_db, verified):
    def verify(*seqs):
        state = AggregateState(registry.get("posts"), AggregateQuery())
        for number, seq in enumerate(seqs):
            state.verify(Position("epoch", 1))
            fold = Fold(AggregateQuery(), {})
            fold.add_read({}, number, {})
            state.complete(_Read(fold, Position("epoch", seq), None))
        return AggregateState.differences

    assert await call(verify, 1, 2) == 0
    assert await call(verify, 1, 1) == 1


async def test_client_with_too_large_groups_is_refused(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "LIMITS": {"window_bytes": 1000}}
    await call(lambda: [Post.objects.create(title="x" * 150 + str(n)) for n in range(10)])
    async with realtime(token=api_key) as connection:
        client = AggregateClient(connection)
        await client.start({"count": True})
        other = AggregateClient(connection, name="groups")
        await other.subscribe({"group_by": ["title"]})
        frame = await connection.receive()
        assert (frame["code"], frame["subscription"]) == ("limit_exceeded", "groups")

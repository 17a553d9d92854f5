"""Windows: the first documents in an order, which the server keeps up to date."""

import asyncio
from threading import Event

import pytest
from django.db import transaction

from django_cocobase_realtime.delivery import live_query, window_query
from django_cocobase_realtime.live_queries import window
from tests.app.models import Post
from tests.support.results import WindowClient
from tests.support.threads import call

pytestmark = pytest.mark.django_db(transaction=True)


def create(*views, **fields):
    return [Post.objects.create(title=f"post {v}", views=v, **fields) for v in views]


@pytest.fixture
def few_spare_rows(monkeypatch):
    """Windows that must be filled often: with one spare row."""
    monkeypatch.setattr(window, "SPARE_ROWS", 1)


@pytest.fixture
def reads(monkeypatch):
    """The positions of all reads; ``reads.gate`` is set unless a test holds them."""

    class Reads(list):
        gate = Event()

    reads = Reads()
    reads.gate.set()
    read = window_query.WindowState._read

    def counted(self, *args):
        reads.append(args)
        assert reads.gate.wait(10)
        return read(self, *args)

    monkeypatch.setattr(window_query.WindowState, "_read", counted)
    return reads


async def test_documents_arrive_in_order(realtime, api_key):
    await call(create, 3, 1, 2)
    async with realtime(token=api_key) as connection:
        client = WindowClient(connection)
        await client.start({"limit": 2, "order": "-views"})
        assert client.values("views") == [3, 2]
        assert client.more
        assert client.frames[0]["reset"]


async def test_change_is_one_frame_that_moves_a_document(realtime, api_key):
    posts = await call(create, 1, 2, 3, 4)
    async with realtime(token=api_key) as connection:
        client = WindowClient(connection)
        await client.start({"limit": 3, "order": ["-views", "title"]})
        posts[0].views = 9
        await call(posts[0].save)
        frame = await client.receive()
        assert client.values("views") == [9, 4, 3]
        assert frame["remove"] == [str(posts[1].pk)]
        assert [index for index, _ in frame["insert"]] == [0]
        assert "reset" not in frame
        await call(Post.objects.filter(views=4).delete)
        await client.receive()
        assert client.values("views") == [9, 3, 2]
        assert not client.more


async def test_frame_only_for_what_a_client_can_see(realtime, api_key):
    posts = await call(create, 1, 2, 3)
    async with realtime(token=api_key) as connection:
        client = WindowClient(connection)
        await client.start({"limit": 2, "order": "-views"}, fields=["title"])
        posts[2].body = "not in the fields"
        await call(posts[2].save)
        posts[0].title = "behind the window"
        await call(posts[0].save)
        posts[2].title = "news"
        await call(posts[2].save)
        await client.receive()
        assert client.values("title") == ["news", "post 2"]
        assert len(client.frames) == 2
        assert client.documents[0]["data"] == {"title": "news"}


async def test_next_row_is_read_when_spare_rows_are_used_up(
    realtime, api_key, few_spare_rows, reads
):
    await call(create, *range(20))
    async with realtime(token=api_key) as connection:
        client = WindowClient(connection)
        await client.start({"limit": 3, "order": "views"})
        for first in range(1, 10):
            await call(Post.objects.filter(views=first - 1).delete)
            await client.receive()
            assert client.values("views") == [first, first + 1, first + 2]
        assert len(reads) == 1 + 4  # every second deletion


async def test_row_leaves_while_the_window_is_filled(realtime, api_key, few_spare_rows, reads):
    await call(create, *range(20))
    async with realtime(token=api_key) as connection:
        client = WindowClient(connection)
        await client.start({"limit": 3, "order": "views"})
        reads.gate.clear()
        await call(lambda: [Post.objects.filter(views=v).delete() for v in (0, 1, 4, 5, 6)])
        await client.receive()  # the first one needs no read
        assert await connection.receive_nothing()
        reads.gate.set()
        while client.values("views") != [2, 3, 7]:
            frame = await client.receive()
            assert len(client.documents) == 3
            assert frame["cursor"]
        # one frame for each change, as if the window had not waited
        assert [len(frame["remove"]) for frame in client.frames[1:]] == [1] * 5


async def test_clients_with_different_limits_share_a_window(realtime, api_key, reads):
    await call(create, *range(10))
    async with realtime(token=api_key) as one, realtime(token=api_key) as two:
        small, large = WindowClient(one), WindowClient(two)
        await large.start({"limit": 8, "order": "views"})
        await small.start({"limit": 2, "order": "views"})
        assert len(reads) == 1
        await call(Post.objects.filter(views=1).delete)
        await small.receive()
        await large.receive()
        assert small.values("views") == [0, 2]
        assert large.values("views") == [0, 2, 3, 4, 5, 6, 7, 8]
        assert small.more
        assert large.more


async def test_larger_limit_is_sent_as_difference(realtime, api_key):
    await call(create, *range(100))
    async with realtime(token=api_key) as connection:
        client = WindowClient(connection)
        await client.start({"limit": 3, "order": "views"})
        await client.start({"limit": 50, "order": "views"})
        assert client.values("views") == list(range(50))
        assert "reset" not in client.frames[-1]
        assert len(client.frames[-1]["insert"]) == 47
        await client.start({"limit": 50, "order": "-views"})
        assert client.frames[-1]["reset"]
        assert client.values("views") == list(range(99, 49, -1))


async def test_pages_follow_each_other(realtime, api_key):
    await call(create, *[n // 3 for n in range(10)])
    async with realtime(token=api_key) as connection:
        seen = []
        after = {}
        for page in range(4):
            client = WindowClient(connection, name=f"page{page}")
            await client.start({"limit": 3, "order": "-views", **after})
            seen += client.ids
            after = {"after": client.next}
        assert client.next is None
        expected = Post.objects.order_by("-views", "pk").values_list("pk", flat=True)
        assert seen == await call(lambda: list(map(str, expected)))


async def test_page_keeps_to_its_place(realtime, api_key):
    posts = await call(create, *range(10))
    async with realtime(token=api_key) as connection:
        first = WindowClient(connection, name="first")
        await first.start({"limit": 3, "order": "views"})
        page = WindowClient(connection, name="page")
        await page.start({"limit": 3, "order": "views", "after": first.next})
        assert page.values("views") == [3, 4, 5]
        posts[9].views = -1
        await call(posts[9].save)
        await first.receive()
        assert await connection.receive_nothing()
        posts[0].views = 4
        await call(posts[0].save)
        for _ in range(2):
            frame = await connection.receive()
            (first if frame["subscription"] == "first" else page).apply(frame)
        assert page.values("views") == [3, 4, 4]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"window": {"order": "password"}}, "order 'password' is not allowed"),
        ({"window": {"order": "views,-views"}}, "twice"),
        ({"window": {"limit": 50000}}, "10000 documents"),
        ({"window": {"limit": 0}}, ">= 1"),
        ({"window": {"after": "K"}}, "after is not the cursor"),
        ({"window": {"ordr": "views"}}, "unknown field"),
        ({"window": {}, "snapshot": True}, "snapshot"),
        ({"window": {}, "transitions": True}, "transitions"),
        ({"window": {}, "events": ["created"]}, "events"),
        ({"window": {}, "aggregate": {}}, "window"),
    ],
)
async def test_wrong_request_is_refused(realtime, api_key, request_, words):
    async with realtime(token=api_key) as connection:
        frame = await connection.request({"type": "subscribe", "collection": "posts", **request_})
        assert frame["type"] == "error"
        assert words in frame["message"]


@pytest.mark.parametrize("option", ["durable", "track"])
async def test_collection_without_old_values_has_no_windows(realtime, api_key, settings, option):
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": {"model": "app.Post", option: False}}}
    async with realtime(token=api_key) as connection:
        frame = await connection.request({"type": "subscribe", "collection": "posts", "window": {}})
        assert frame["code"] == "bad_request"
        assert "not available" in frame["message"]


async def test_cursor_of_a_page_is_valid_for_one_order(realtime, api_key):
    await call(create, *range(3))
    async with realtime(token=api_key) as connection:
        client = WindowClient(connection)
        await client.start({"limit": 1, "order": "views"})
        frame = await connection.request(
            {
                "type": "subscribe",
                "collection": "posts",
                "window": {"order": "-views", "after": client.next},
            }
        )
        assert "after is not the cursor" in frame["message"]


# resuming


async def resume(realtime, api_key, old, change=None):
    """Drop a connection, change something, and return a client that continues."""
    if change is not None:
        await call(change)
    async with realtime(token=api_key) as connection:
        client = WindowClient(connection)
        client.documents = old.documents
        client.more = old.more
        reply = await client.subscribe(
            {"limit": 2, "order": "views"},
            filters={"status": "draft"},
            since=old.cursor,
            scope=old.scope,
        )
        assert reply["resumed"]
        await client.receive()
        await call(create, -1)
        await client.receive()
    return client


async def test_resumes_without_documents_if_nothing_has_changed(realtime, api_key):
    await call(create, 1, 2, 3)
    async with realtime(token=api_key) as connection:
        old = WindowClient(connection)
        await old.start({"limit": 2, "order": "views"}, filters={"status": "draft"})
    client = await resume(realtime, api_key, old, lambda: create(0, status="published"))
    assert client.values("views") == [-1, 1]
    assert "reset" not in client.frames[0]


async def test_resumes_with_all_documents_if_one_has_changed(realtime, api_key):
    await call(create, 1, 2, 3)
    async with realtime(token=api_key) as connection:
        old = WindowClient(connection)
        await old.start({"limit": 2, "order": "views"}, filters={"status": "draft"})
    client = await resume(
        realtime, api_key, old, lambda: Post.objects.filter(views=1).update(status="published")
    )
    assert client.frames[0]["reset"]
    assert client.values("views") == [-1, 2]


# long frames


async def test_long_window_is_sent_in_parts(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "LIMITS": {"event_bytes": 2000}}
    await call(lambda: create(*range(20), body="x" * 400))
    async with realtime(token=api_key) as connection:
        client = WindowClient(connection)
        await client.start({"limit": 15, "order": "views"})
        assert len(client.frames) > 3
        assert client.frames[0]["reset"]
        assert not any(frame.get("reset") for frame in client.frames[1:])
        assert client.values("views") == list(range(15))
        await call(lambda: Post.objects.filter(views=0).update(body="y" * 3000))
        await client.receive()
        assert client.documents[0] == {"id": client.ids[0], "truncated": True}


async def test_client_with_too_large_windows_is_refused(realtime, api_key, settings):
    settings.COCOBASE_REALTIME = {**settings.COCOBASE_REALTIME, "LIMITS": {"window_bytes": 5000}}
    await call(lambda: create(*range(20), body="x" * 400))
    async with realtime(token=api_key) as connection:
        client = WindowClient(connection)
        await client.subscribe({"limit": 15, "order": "views"})
        frame = await connection.receive()
        assert frame["code"] == "limit_exceeded"
        assert frame["subscription"] == "w"
        assert "window_bytes" not in frame["message"]


# failures


async def test_database_does_not_answer_while_a_window_is_filled(
    realtime, api_key, few_spare_rows, monkeypatch
):
    from django.db import OperationalError

    monkeypatch.setattr(live_query, "RETRY_INTERVAL", 0.05)
    await call(create, *range(20))
    async with realtime(token=api_key) as connection:
        client = WindowClient(connection)
        await client.start({"limit": 3, "order": "views"})
        read, failures = window_query.WindowState._read, iter([True, True])

        def failing(self, *args):
            if next(failures, False):
                raise OperationalError("down")
            return read(self, *args)

        monkeypatch.setattr(window_query.WindowState, "_read", failing)
        await call(lambda: Post.objects.filter(views__lt=2).delete())
        for _ in range(2):
            await client.receive()
        assert client.values("views") == [2, 3, 4]


async def test_other_subscriptions_go_on_while_a_window_waits(
    realtime, api_key, few_spare_rows, reads
):
    await call(create, *range(20))
    async with realtime(token=api_key) as one, realtime(token=api_key) as two:
        client = WindowClient(one)
        await client.start({"limit": 3, "order": "views"})
        await two.subscribe("posts")
        reads.gate.clear()
        await call(lambda: Post.objects.filter(views__lt=2).delete())
        for _ in range(2):
            await two.receive("event")
        await client.receive()
        assert await one.receive_nothing()
        reads.gate.set()
        await client.receive()
        assert client.values("views") == [2, 3, 4]


async def test_changes_of_one_transaction_each_have_a_frame(realtime, api_key):
    await call(create, *range(5))
    async with realtime(token=api_key) as connection:
        client = WindowClient(connection)
        await client.start({"limit": 3, "order": "views"})

        def change():
            with transaction.atomic():
                Post.objects.filter(views=0).update(views=10)
                Post.objects.filter(views=1).delete()
                create(1.5 and 2)

        await call(change)
        for _ in range(3):
            await client.receive()
        assert client.values("views") == [2, 2, 3]


async def test_window_ends_with_its_last_client(realtime, api_key):
    await call(create, 1)
    async with realtime(token=api_key) as connection:
        client = WindowClient(connection)
        await client.start({"order": "views"})
        await connection.request({"type": "unsubscribe", "subscription": "w"})
        await call(create, 2)
        assert await connection.receive_nothing()
        await asyncio.sleep(0)

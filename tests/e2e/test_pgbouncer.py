"""PostgreSQL behind PgBouncer in transaction mode: nothing depends on the session."""

import contextlib
import threading

import pytest
from django.db import connection, connections, transaction

from django_cocobase_realtime.models import LogEvent
from tests.app.models import Post
from tests.e2e.test_outages import (
    BackgroundWork,
    change_posts,
    open_live_lists,
    wait_until_equal,
)
from tests.support.pgbouncer import PgBouncer, require_pgbouncer
from tests.support.threads import call
from tests.support.triggers import installed_triggers

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="Needs PostgreSQL."),
]
WRITERS = 4


@pytest.fixture
def pooled(transactional_db, monkeypatch, tmp_path_factory):
    """Connect to the test's database through PgBouncer, also in the servers of the test."""
    require_pgbouncer()
    folder = tmp_path_factory.mktemp("pgbouncer")
    for path in (folder, *folder.parents[:2]):
        path.chmod(0o755)  # PgBouncer has another user
    settings = connections["default"].settings_dict
    pgbouncer = PgBouncer(folder, settings)
    pgbouncer.start()
    connections["default"].close()
    for key, value in {**pgbouncer.address, "DISABLE_SERVER_SIDE_CURSORS": True}.items():
        monkeypatch.setitem(settings, key, value)
    yield pgbouncer
    connections["default"].close()
    monkeypatch.undo()
    pgbouncer.stop()


def backends(count=30):
    """Return the processes of PostgreSQL that execute statements of one connection."""
    found = set()
    for _ in range(count):
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            found.add(cursor.fetchone()[0])
    return found


def write(number):
    """Make changes in many ways; some are rolled back."""
    for n in range(6):
        with transaction.atomic():
            post = Post.objects.create(title=f"{number}", views=n)
            with contextlib.suppress(ValueError), transaction.atomic():
                Post.objects.filter(pk=post.pk).update(views=99)
                raise ValueError
        post.views = n + 3
        post.save()
        Post.objects.bulk_create([Post(title=f"{number}", views=v) for v in range(2)])
        if n % 3 == 0:
            for other in Post.objects.filter(title=f"{number}").iterator(chunk_size=1):
                if other.views < 2:
                    other.delete()
    connection.close()


def numbers_of_log():
    with contextlib.closing(connections["default"]):
        return sorted(LogEvent.objects.filter(seq__isnull=False).values_list("seq", flat=True))


@pytest.fixture(params=["signals", "triggers"])
def collections(request, pooled, settings):
    """Posts, whose triggers are installed through PgBouncer if they are captured by them."""
    collections = {"posts": {"model": "app.Post", "capture": request.param}}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": collections}
    if request.param == "signals":
        yield collections
    else:
        with installed_triggers():
            yield collections


async def test_changes_are_logged_numbered_and_delivered(collections, serve, api_key):
    options = {"COLLECTIONS": collections, "REVOCATION_POLL": 0.5, "LOG": {"POLL": 0.2}}
    server = await call(lambda: serve("uvicorn", settings=options))
    async with open_live_lists(server.socket_url, api_key) as lists:
        with BackgroundWork() as work:
            work.start(change_posts, 0.01, may_fail=False)
            threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
            for thread in threads:
                thread.start()
            assert len(await call(backends)) > 1
            for thread in threads:
                await call(thread.join)
            await call(work.over.set)
        assert work.failures == []
        for live in lists:
            await wait_until_equal(live)
    numbers = await call(numbers_of_log)
    assert len(numbers) > WRITERS * 30
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert "Traceback" not in server.log.read_text()

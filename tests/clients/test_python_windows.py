"""The Python client's windows and counts, apart from what all clients do."""

import asyncio
import json

import pytest

from django_cocobase_realtime.client import Group, RealtimeError
from tests.clients.scripted_server import ScriptedServer
from tests.clients.test_python_client import open_client


@pytest.fixture
async def server():
    async with ScriptedServer() as server:
        yield server


async def open_window(db, connection, *documents, **options):
    """Return a list that shows documents, which are (id, data), and its request."""
    posts = db.live("posts", **{"order": "n", "limit": 2, **options})
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, scope="s")
    await send_all(connection, request, *documents)
    return await posts.ready(), request


async def send_all(connection, request, *documents, more=True):
    insert = [(index, id, data) for index, (id, data) in enumerate(documents)]
    await connection.send_window(request, *insert, reset=True, cursor="c0", more=more, next="p0")


async def open_count(db, connection, *groups, **options):
    count = db.count("posts", **options)
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, scope="s")
    await connection.send_aggregate(request, *groups, reset=True, cursor="c0")
    return await count.ready(), request


async def test_number_that_becomes_a_boolean_is_another_value(server):
    db, connection = await open_client(server)
    posts, request = await open_window(db, connection, ("1", {"n": 1}), ("2", {"n": [0.0]}))
    changes, documents = posts.changes(), posts.documents
    change = ((0, "1", {"n": 1}), (1, "2", {"n": [0.0]}))
    await connection.send_window(request, *change, remove=("1", "2"), cursor="c1", more=True)
    await connection.send_window(
        request, (0, "1", {"n": True}), remove=("1",), cursor="c2", more=True
    )
    # only the second change is one
    assert await anext(changes) is posts.documents
    assert posts.documents[0].data["n"] is True
    assert posts.documents[1] is documents[1]
    await db.close()


async def test_change_of_what_follows_a_window_is_a_change(server):
    db, connection = await open_client(server)
    posts, request = await open_window(db, connection, ("1", {}), ("2", {}))
    changes, documents = posts.changes(), posts.documents
    assert (posts.has_more, posts.next) == (True, "p0")
    await connection.send_window(request, cursor="c1", more=False)
    after = await anext(changes)
    assert after is posts.documents is not documents
    assert after == documents
    assert (posts.has_more, posts.next) == (False, None)
    # the cursor of the next page is the same as before
    await connection.send_window(request, cursor="c2", more=True)
    await anext(changes)
    assert (posts.has_more, posts.next) == (True, "p0")
    await db.close()


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
async def test_number_of_documents_to_add_must_be_positive(server, n):
    db, connection = await open_client(server)
    posts, _ = await open_window(db, connection)
    with pytest.raises(ValueError, match="positive"):
        await posts.more(n)
    await connection.receive_nothing()
    await db.close()


@pytest.mark.parametrize("options", [{"order": "n", "limit": None}, {"order": None, "limit": None}])
async def test_list_without_a_limit_is_not_extended(server, options):
    db, connection = await open_client(server)
    posts = db.live("posts", **options)
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    if options["order"] is None:
        await connection.send_snapshot(request, cursor="c0")
    else:
        await send_all(connection, request)
    await posts.more()
    await connection.receive_nothing()
    await db.close()


async def test_list_becomes_a_window_and_a_list_again(server):
    db, connection = await open_client(server)
    posts, request = await open_window(db, connection, ("1", {"n": 1}), fields=["n"])
    first = posts.documents[0]
    changes = posts.changes()
    task = asyncio.create_task(posts.update(order=None, limit=None))
    request = await connection.receive("subscribe")
    assert (request["snapshot"], request["transitions"]) == (True, True)
    assert "window" not in request
    assert request["fields"] == ["n"]
    await connection.reply_subscribed(request, cursor="c1", scope="s")
    await connection.send_snapshot(request, ("2", {"n": 2}), ("1", {"n": 1}), cursor="c1")
    await task
    assert (await anext(changes))[1] is first
    assert (posts.has_more, posts.next) == (False, None)
    task = asyncio.create_task(posts.update(order=["-n"]))
    request = await connection.receive("subscribe")
    assert request["window"] == {"order": ["-n"]}
    assert not {"snapshot", "transitions"} & set(request)
    await connection.reply_subscribed(request, scope="s")
    await send_all(connection, request, ("1", {"n": 1}), more=False)
    await task
    assert posts.documents == (first,)
    await db.close()


async def test_groups_cannot_be_changed(server):
    db, connection = await open_client(server)
    group = {"key": {"tags": "a"}, "count": 1, "sum": {"n": "9007199254740993"}}
    group["avg"] = {"n": {"sum": "9007199254740993", "n": 2}}
    count, _ = await open_count(db, connection, group, group_by="tags", sum="n", avg="n")
    (shown,) = count.groups
    assert isinstance(shown, Group)
    assert shown.avg == {"n": 9007199254740993 / 2}
    assert (shown.sum, shown.min, shown.max) == ({"n": "9007199254740993"}, {}, {})
    for change in (lambda: shown.key.update(n=2), lambda: shown.avg.clear()):
        with pytest.raises(TypeError, match="copy"):
            change()
    with pytest.raises(AttributeError):
        shown.count = 2
    assert json.loads(json.dumps(shown.key)) == {"tags": "a"}
    await db.close()


async def test_groups_of_a_number_and_a_boolean_are_different(server):
    db, connection = await open_client(server)
    keys = (1, True, None, "1")
    groups = [{"key": {"n": key}, "count": 1} for key in keys]
    count, request = await open_count(db, connection, *groups, group_by=["n"])
    assert (count.value, len(count.groups)) == (4, 4)
    await connection.send_aggregate(request, {"key": {"n": True}, "count": 0}, cursor="c1")
    assert len(await anext(count.changes())) == 3
    assert [group.key["n"] for group in count.groups] == [1, None, "1"]
    await db.close()


async def test_option_with_a_wrong_type_raises_at_once(server):
    db, connection = await open_client(server)
    count, _ = await open_count(db, connection, {"count": 1})
    for wrong in ({"sum": 5}, {"group_by": [object()]}, {"filters": {"n": float("nan")}}):
        with pytest.raises((TypeError, ValueError)):
            db.count("posts", **wrong)
        with pytest.raises((TypeError, ValueError)):
            await count.update(**wrong)
    with pytest.raises(TypeError):
        db.live("posts", order=object())
    await connection.receive_nothing()
    await db.close()


async def test_error_of_a_count_is_passed_to_its_own_function(server):
    errors = []
    db, connection = await open_client(server)
    count = db.count("posts", on_error=errors.append)
    await connection.reply_error(await connection.receive("subscribe"), "bad_request")
    with pytest.raises(RealtimeError, match="bad_request"):
        await count.ready()
    assert [error.code for error in errors] == ["bad_request"]
    with pytest.raises(RealtimeError):
        await anext(count.changes())
    await db.close()


async def test_count_of_a_closed_client_stays(server):
    db, connection = await open_client(server)
    count, _ = await open_count(db, connection, {"count": 3})
    changes = count.changes()
    await db.close()
    assert [groups async for groups in changes] == []
    assert count.value == 3
    with pytest.raises(RealtimeError, match="closed"):
        db.count("posts")


async def test_failure_in_the_server_keeps_what_is_shown(server):
    """Parts that have arrived are dropped, so that everything is requested again."""
    db, connection = await open_client(server, on_error=lambda error: None)
    posts, request = await open_window(db, connection, ("1", {}), ("2", {}))
    await connection.send_window(request, remove=("1",))
    error = {"type": "error", "code": "internal_error", "message": "No."}
    await connection.send({**error, "subscription": request["subscription"]})
    request = await connection.receive("subscribe")
    assert "since" not in request
    assert [document.id for document in posts.documents] == ["1", "2"]
    await connection.reply_subscribed(request, scope="s")
    await connection.send_window(request, (0, "2", {}), cursor="c9", reset=True)
    await anext(posts.changes())
    assert [document.id for document in posts.documents] == ["2"]
    await db.close()


async def test_list_is_ready_after_a_failure_when_its_result_is_known(server):
    db, connection = await open_client(server, on_error=lambda error: None)
    posts, request = await open_window(db, connection, ("1", {}))
    error = {"type": "error", "code": "internal_error", "message": "No."}
    await connection.send({**error, "subscription": request["subscription"]})
    request = await connection.receive("subscribe")
    task = asyncio.create_task(posts.ready())
    await connection.reply_subscribed(request, scope="s", resumed=True)
    await asyncio.sleep(0.1)
    assert not task.done()
    await connection.send_cursor(request, "c1")
    assert await task is posts
    await db.close()


async def test_cursor_before_the_result_of_new_options_is_not_kept(server):
    db, connection = await open_client(server, random=lambda: 0.01)
    posts, _ = await open_window(db, connection, ("1", {}))
    task = asyncio.create_task(posts.update(order="title"))
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, scope="s")
    await connection.send_cursor(request, "c8")
    await asyncio.sleep(0.1)
    assert not task.done()
    connection.abort()
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    assert request["window"]["order"] == "title"
    assert not {"since", "scope"} & set(request)
    await connection.reply_subscribed(request, scope="s")
    await send_all(connection, request, ("2", {}))
    await task
    assert [document.id for document in posts.documents] == ["2"]
    await db.close()

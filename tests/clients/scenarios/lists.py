"""Promise 4: a list is the server's list.

A client must:

- Compare values by ``kinds`` of ``subscribed``: numbers and decimals exactly, also as strings;
  texts by code points, also if they look like numbers. ``id`` is the kind of the ids. Null comes
  before all values. A server without ``kinds`` is guessed at as before.
- With ``fields``, also request the field in ``order``.
- With ``limit``: the last document of a snapshot that is not complete is the boundary of what the
  client knows, but only as long as no event changes it.
- Show the result of a frame with several events once.
"""

from __future__ import annotations

from typing import Any

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import accept_reconnect, start_client, start_live
from tests.clients.scripted_server import ScriptedServer, change_event


async def wait_for_ids(client: Driver, *ids: str) -> None:
    """Wait until the list ``l`` shows documents with these ids."""
    while True:
        report = await client.wait_for("l", "documents")
        if [id for id, _ in report["documents"]] == list(ids):
            return


async def check_order(
    client: Driver, server: ScriptedServer, kind: str, values: list[Any], *, id_kind: str = "number"
) -> None:
    """Check that documents are shown in the order of ``values``, which is not that of the ids."""
    documents = [(str(20 - n), {"n": value}) for n, value in enumerate(values)]
    connection, request = await start_live(
        server, client, *documents[::2], kinds={"n": kind, "id": id_kind}, order="n"
    )
    for id, data in documents[1::2]:
        await connection.send(change_event(request, "created", id, f"c{id}", **data))
    await wait_for_ids(client, *(id for id, _ in documents))


async def texts_that_look_like_numbers_are_sorted_as_texts(
    server: ScriptedServer, client: Driver
) -> None:
    await check_order(client, server, "text", [None, "", "10", "100", "9", "A", "a", "é"])


async def texts_are_sorted_by_code_points(server: ScriptedServer, client: Driver) -> None:
    # in UTF-16, U+1F600 begins with D83D, which is less than FF5E
    await check_order(client, server, "text", ["z", "\uff5e", "\U0001f600"])


async def decimals_are_sorted_exactly(server: ScriptedServer, client: Driver) -> None:
    values = ["-10.5", "-9.75", "0.10", "9.75", "10.5"]
    values += ["12345678901234567890.01", "12345678901234567890.02"]
    await check_order(client, server, "decimal", [None, *values])


async def integers_beyond_the_exact_numbers_are_sorted_exactly(
    server: ScriptedServer, client: Driver
) -> None:
    values = ["-9007199254740995", "-9007199254740993", -5, 9, 10]
    values += [9007199254740992, "9007199254740993", "9007199254740995"]
    values += ["9223372036854775806", "9223372036854775807"]
    await check_order(client, server, "number", values)


async def datetimes_are_sorted_as_points_in_time(server: ScriptedServer, client: Driver) -> None:
    values = ["2026-01-31T12:00:00+00:00", "2026-01-31T12:00:00.000001+00:00"]
    values += ["2026-01-31T12:00:00.500000+00:00", "2026-01-31T12:00:01+00:00"]
    await check_order(client, server, "datetime", [None, *values])


async def booleans_are_sorted(server: ScriptedServer, client: Driver) -> None:
    await check_order(client, server, "boolean", [None, False, True])


async def equal_values_are_sorted_by_ids_of_their_kind(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_live(
        server, client, ("10", {"n": 1}), kinds={"n": "number", "id": "text"}, order="n"
    )
    await connection.send(change_event(request, "created", "9", "c1", n=1))
    await wait_for_ids(client, "10", "9")
    await connection.send(change_event(request, "created", "100", "c2", n=1))
    await wait_for_ids(client, "10", "100", "9")


async def list_without_order_is_sorted_by_ids_of_their_kind(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_live(
        server, client, ("b", {}), ("10", {}), kinds={"id": "text"}
    )
    await connection.send(change_event(request, "created", "9", "c1"))
    await wait_for_ids(client, "10", "9", "b")


async def order_by_a_field_that_was_not_requested(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    options = {"order": "-n", "limit": 2, "fields": ["title"]}
    await client.do("live", "l", collection="posts", options=options)
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    assert set(request["fields"]) == {"title", "n"}
    kinds = {"n": "number", "id": "number"}
    await connection.reply_subscribed(request, cursor="c0", scope="s", kinds=kinds)
    snapshot = (("1", {"title": "z", "n": 9}), ("2", {"title": "a", "n": 8}))
    await connection.send_snapshot(request, *snapshot, cursor="c0", truncated=True)
    await wait_for_ids(client, "1", "2")
    await connection.send(change_event(request, "created", "3", "c1", title="m", n=10))
    await wait_for_ids(client, "3", "1")


async def row_that_moves_behind_the_limit_during_its_snapshot(
    server: ScriptedServer, client: Driver
) -> None:
    """The snapshot chose 9 and 8; before 8 was read, it became the last of all."""
    await start_client(server, client)
    await client.do("live", "l", collection="posts", options={"order": "-n", "limit": 2})
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    snapshot = (("9", {"n": 9}), ("8", {"n": 1}))
    await connection.send_snapshot(request, *snapshot, cursor="c0", truncated=True)
    await client.wait_for("l", "ready")
    event = change_event(request, "updated", "8", "c1", n=1)
    await connection.send({**event, "changed": ["n"]})
    request = await connection.receive("subscribe")
    assert "since" not in request
    await connection.reply_subscribed(request, cursor="c1", scope="s")
    snapshot = (("9", {"n": 9}), ("7", {"n": 7}))
    await connection.send_snapshot(request, *snapshot, cursor="c1", truncated=True)
    await wait_for_ids(client, "9", "7")
    await connection.receive_nothing(1)


async def first_row_that_moves_behind_the_limit_during_its_snapshot(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("live", "l", collection="posts", options={"order": "-n", "limit": 2})
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    snapshot = (("9", {"n": 1}), ("8", {"n": 8}))
    await connection.send_snapshot(request, *snapshot, cursor="c0", truncated=True)
    await client.wait_for("l", "ready")
    event = change_event(request, "updated", "9", "c1", n=1)
    await connection.send({**event, "changed": ["n"]})
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c1", scope="s")
    snapshot = (("8", {"n": 8}), ("7", {"n": 7}))
    await connection.send_snapshot(request, *snapshot, cursor="c1", truncated=True)
    await wait_for_ids(client, "8", "7")


async def events_of_one_frame_are_shown_at_once(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_live(server, client, ("1", {"n": 1}), order="n")
    events = [
        change_event(request, "deleted", "1", "c1", n=1),
        change_event(request, "created", "2", "c2", n=2),
        change_event(request, "created", "3", "c3", n=3),
    ]
    await connection.send({"type": "events", "events": events})
    await client.expect("l", "documents", documents=[["2", {"n": 2}], ["3", {"n": 3}]])


async def updated_list_is_replaced_at_once(server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_live(server, client, ("1", {"n": 1}), order="n")
    await client.do("update", "l", options={"filters": {"n__gt": 1}})
    second = await connection.receive("subscribe")
    # sent before the server received the new request
    await connection.send(change_event(request, "created", "5", "c1", n=5))
    await client.expect("l", "documents", documents=[["1", {"n": 1}], ["5", {"n": 5}]])
    await connection.reply_subscribed(second, cursor="c1", scope="t")
    await connection.send_snapshot(second, ("5", {"n": 5}), cursor="c1", more=True)
    await connection.send_snapshot(second, ("6", {"n": 6}), cursor="c1")
    await client.expect("l", "documents", documents=[["5", {"n": 5}], ["6", {"n": 6}]])


async def list_after_missed_events_equals_a_fresh_one(
    server: ScriptedServer, client: Driver
) -> None:
    connection, _ = await start_live(
        server, client, ("1", {"n": 1}), ("2", {"n": 2}), ("3", {"n": 3}), order="-n"
    )
    connection.abort()
    connection = await accept_reconnect(server, client)
    request = await connection.receive("subscribe")
    assert request["since"] == "c0"
    await connection.reply_subscribed(request, cursor="c0", scope="s", resumed=True)
    for event in (
        change_event(request, "deleted", "3", "c1", n=3),
        change_event(request, "updated", "1", "c2", n=4),
        change_event(request, "left", "2", "c3"),
        change_event(request, "entered", "4", "c4", n=5),
    ):
        await connection.send({**event, "replayed": True})
    await wait_for_ids(client, "4", "1")


async def refused_fields_do_not_change_what_a_list_shows(
    server: ScriptedServer, client: Driver
) -> None:
    first = ("1", {"title": "a", "n": 1})
    connection, request = await start_live(server, client, first, order="n", fields=["title"])
    await client.do("update", "l", options={"fields": ["title", "n", "secret"]})
    await connection.reply_error(await connection.receive("subscribe"), "bad_request")
    await client.wait_for("l", "failed", code="bad_request")
    await connection.send(change_event(request, "updated", "1", "c1", title="b", n=1))
    await client.wait_for("l", "documents", documents=[["1", {"title": "b"}]])


async def fields_are_hidden_until_others_are_accepted(
    server: ScriptedServer, client: Driver
) -> None:
    first = ("1", {"title": "a", "n": 1})
    connection, request = await start_live(server, client, first, order="n", fields=["title"])
    await client.do("update", "l", options={"fields": ["title", "n"]})
    update = await connection.receive("subscribe")
    await connection.send(change_event(request, "updated", "1", "c1", title="b", n=1))
    await client.wait_for("l", "documents", documents=[["1", {"title": "b"}]])
    await connection.reply_subscribed(update, cursor="c1", scope="s")
    await connection.send_snapshot(update, ("1", {"title": "b", "n": 1}), cursor="c1")
    await client.wait_for("l", "documents", documents=[["1", {"title": "b", "n": 1}]])
    await client.wait_for("l", "ready")

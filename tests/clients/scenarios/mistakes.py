"""Promise 5: the program's mistakes stay its own.

A client must:

- Report what a listener raises to ``error`` of the client, with ``source`` "listener", and go on:
  the other listeners are called. In JavaScript, listeners may be asynchronous; in Python, functions
  given to ``subscribe``, ``on_status`` and ``on_error`` may be. An error listener that raises is
  not called endlessly.
- Report a token function that raises or takes longer than ``timeout`` with the source "token", and
  ask it again, later.
- Report a refused handshake, or an address that cannot be used, with the source "connection"; in
  Python, ``connected`` raises it.
- Raise for unknown options, and for values that are not JSON, such as ``undefined``.
- Give no listener a value through which it can change what others see.
"""

from __future__ import annotations

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import start_client, start_live
from tests.clients.scripted_server import ScriptedServer, change_event


async def reader_that_throws_is_reported_and_harms_no_other(
    server: ScriptedServer, client: Driver
) -> None:
    await check_reader("throw", server, client)


async def reader_that_rejects_is_reported_and_harms_no_other(
    server: ScriptedServer, client: Driver
) -> None:
    await check_reader("reject", server, client)


async def check_reader(behavior: str, server: ScriptedServer, client: Driver) -> None:
    connection, request = await start_live(server, client, ("1", {"n": 1}))
    await client.do("subscribe", "bad", live="l", behavior=behavior)
    await client.do("subscribe", "good", live="l")
    await client.wait_for("errors", "error", origin="listener")
    await client.expect("good", "documents", documents=[["1", {"n": 1}]])
    await connection.send(change_event(request, "created", "2", "c1", n=2))
    documents = [["1", {"n": 1}], ["2", {"n": 2}]]
    for name in ("l", "bad", "good"):
        await client.wait_for(name, "documents", documents=documents)
    await client.wait_for("errors", "error", origin="listener")
    await connection.send(change_event(request, "deleted", "1", "c2", n=1))
    await client.expect("good", "documents", documents=[["2", {"n": 2}]])
    assert server.count == 1


async def reader_that_changes_documents_harms_no_other(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_live(server, client, ("1", {"n": 1}))
    await client.do("subscribe", "bad", live="l", behavior="mutate")
    await client.do("subscribe", "good", live="l")
    await client.expect("good", "documents", documents=[["1", {"n": 1}]])
    await connection.send(change_event(request, "created", "2", "c1", n=2))
    documents = [["1", {"n": 1}], ["2", {"n": 2}]]
    await client.expect("good", "documents", documents=documents)
    await client.expect("l", "documents", documents=documents)
    await connection.send(change_event(request, "created", "3", "c2", n=3))
    await client.expect("good", "documents", documents=[*documents, ["3", {"n": 3}]])


async def handler_that_changes_an_event_harms_no_other(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("watch", "bad", collection="posts", behavior="mutate")
    await client.do("watch", "good", collection="posts")
    await client.do("live", "l", collection="posts")
    connection = await server.accept_authenticated()
    requests = [await connection.receive("subscribe") for _ in range(3)]
    for request in requests:
        await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(requests[2], cursor="c0")
    event = change_event(requests[0], "created", "1", "c1", n=1)
    names = [request["subscription"] for request in requests]
    await connection.send({**event, "subscriptions": names})
    await client.wait_for("good", "event", id="1", data={"n": 1})
    await client.wait_for("l", "documents", documents=[["1", {"n": 1}]])


async def reader_that_subscribes_within_itself_is_called_a_bounded_number_of_times(
    server: ScriptedServer, client: Driver
) -> None:
    connection, request = await start_live(server, client)
    await client.do("subscribe", "bad", live="l", behavior="resubscribe")
    await connection.send(change_event(request, "created", "1", "c1", n=1))
    await client.wait_for("l", "documents", documents=[["1", {"n": 1}]])
    await client.do("calls", "bad")
    report = await client.wait_for("bad", "calls")
    assert report["calls"] < 10  # once at first, then for the change and for the new reader


async def status_listener_that_throws_is_reported(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client, behavior="throw")
    await client.do("watch", "w", collection="posts")
    connection = await server.accept_authenticated()
    await client.wait_for("errors", "error", origin="listener")
    await connection.reply_subscribed(await connection.receive("subscribe"), cursor="c0")
    await client.wait_for("w", "ready")
    connection.abort()
    connection = await server.accept_authenticated()
    assert (await connection.receive("subscribe"))["since"] == "c0"


async def error_listener_that_throws_is_not_called_endlessly(
    server: ScriptedServer, client: Driver
) -> None:
    await check_error_listener("throw", server, client)


async def error_listener_that_rejects_is_not_called_endlessly(
    server: ScriptedServer, client: Driver
) -> None:
    await check_error_listener("reject", server, client)


async def check_error_listener(behavior: str, server: ScriptedServer, client: Driver) -> None:
    client.may_log = True  # there is no other place for such an error
    await start_client(server, client, error_behavior=behavior)
    connection = await server.accept_authenticated()
    await connection.send({"type": "error", "code": "too_large", "message": "No."})
    await client.wait_for("errors", "error", code="too_large", origin="server")
    assert len(await client.collect("errors", 0.5)) <= 1  # at most, the mistake itself
    await client.do("watch", "w", collection="posts")
    await connection.reply_subscribed(await connection.receive("subscribe"), cursor="c0")
    await client.wait_for("w", "ready")


async def token_function_that_never_answers_is_asked_again(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client, tokens=["$hang", "second"], timeout=2000)
    await client.wait_for("errors", "error", origin="token")
    await client.wait_for("db", "status", status="waiting")
    connection = await server.accept_authenticated()
    assert connection.auth["token"] == "second"


async def token_function_that_throws_is_asked_again(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client, tokens=["$throw", "$reject", "third"])
    for _ in range(2):
        await client.wait_for("errors", "error", origin="token")
        await client.wait_for("db", "status", status="waiting")
    connection = await server.accept_authenticated()
    assert connection.auth["token"] == "third"


async def refused_handshake_is_reported(server: ScriptedServer, client: Driver) -> None:
    """Python raises it. JavaScript does not see the status, and tries again."""
    server.refusal = 403
    client.may_log = True
    await client.do("create", url=server.url, tokens="key")
    await client.wait_for("errors", "error", origin="connection")


async def address_that_cannot_be_used_is_reported(server: ScriptedServer, client: Driver) -> None:
    await client.do("create", url="wrong://[", tokens="key")
    report = await client.wait_for_any("db", "failed", "error")
    assert report["kind"] == "failed" or report["origin"] == "connection"


async def unknown_options_are_refused(server: ScriptedServer, client: Driver) -> None:
    await client.do("create", url=server.url, options={"tokn": "key"})
    await client.expect("db", "failed")
    await start_client(server, client)
    await client.do("room", "r", name="chat", options={"histroy": 5})
    await client.expect("r", "failed")
    connection = await server.accept_authenticated()
    await connection.receive_nothing()


async def filter_that_is_not_json_is_refused(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    connection = await server.accept_authenticated()
    await client.do("watch", "w", collection="posts", options={"filters": {"n": "$undefined"}})
    await client.wait_for("w", "failed")
    await client.do("live", "l", collection="posts", options={"filters": {"n": "$undefined"}})
    await client.wait_for("l", "failed")
    await connection.receive_nothing()


async def errors_have_a_source(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("watch", "w", collection="secrets")
    await client.do("live", "l", collection="secrets")
    await client.do("room", "r", name="secrets")
    connection = await server.accept_authenticated()
    for type in ("subscribe", "subscribe", "join"):
        await connection.reply_error(await connection.receive(type), "forbidden")
    for _ in "wlr":
        await client.wait_for("errors", "error", code="forbidden", origin="server")
    await connection.close(4500)
    await client.wait_for("errors", "error", code=4500, origin="server")


async def debug_prints_frames_without_tokens(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client, tokens="crk_secret", debug=True)
    await client.do("watch", "w", collection="posts")
    connection = await server.accept_authenticated()
    assert connection.auth["token"] == "crk_secret"
    await connection.reply_subscribed(await connection.receive("subscribe"), cursor="c0")
    await client.wait_for("w", "ready")
    text = ""
    while "auth" not in text or "subscribed" not in text:
        text += (await client.expect("debug", "line"))["text"]
    assert "crk_secret" not in text

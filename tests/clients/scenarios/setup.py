"""Steps with which scenarios begin, and accept a client that reconnects."""

from __future__ import annotations

from typing import Any

from tests.clients.drivers import Driver
from tests.clients.scripted_server import LIMITS, Connection, ScriptedServer, broadcast_event

# the documents of `start_list`
FIRST = (("1", {"n": 1}), ("2", {"n": 2}), ("3", {"n": 3}))


async def start_client(server: ScriptedServer, client: Driver, **options: Any) -> None:
    await client.do("create", url=server.url, **{"tokens": "key", **options})
    await client.expect("db", "status", status="connecting")


async def start_client_live(server: ScriptedServer, client: Driver, **options: Any) -> Connection:
    await start_client(server, client, **options)
    connection = await server.accept_authenticated()
    await client.wait_for("db", "status", status="live")
    return connection


async def start_watching(
    server: ScriptedServer, client: Driver, **options: Any
) -> tuple[Connection, Any]:
    """Let ``w`` watch posts from cursor ``c0``. Return its connection and its request."""
    await start_client(server, client)
    await client.do("watch", "w", collection="posts", options=options)
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await client.expect("w", "ready")
    return connection, request


async def accept_reconnect(server: ScriptedServer, client: Driver, **fields: Any) -> Any:
    """Return the connection of a client that reconnects after a loss.

    ``fields`` are those of ``authenticated``. If they have a user, the client must report it.
    """
    await client.wait_for("db", "status", status="waiting")
    connection = await server.accept_authenticated(**fields)
    user = {"user": fields["user"]} if "user" in fields else {}
    await client.wait_for("db", "status", status="live", **user)
    return connection


async def start_live(
    server: ScriptedServer, client: Driver, *documents: Any, **options: Any
) -> tuple[Connection, Any]:
    """Let ``l`` show posts, which are ``documents``. Return its connection and its request."""
    await start_client(server, client)
    await client.do("live", "l", collection="posts", options=options)
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, cursor="c0", scope="s")
    await connection.send_snapshot(request, *documents, cursor="c0")
    await client.wait_for("l", "ready")
    return connection, request


async def start_window(
    server: ScriptedServer, client: Driver, *numbers: int, more: bool = False, **options: Any
) -> tuple[Connection, Any]:
    """Let ``l`` show a window of posts, which has the documents with these numbers.

    Its cursor is ``c0``, its scope ``s``, and the page behind it has the cursor ``p0``.
    """
    await start_client(server, client)
    options = {"order": "n", "limit": 3, **options}
    await client.do("live", "l", collection="posts", options=options)
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await accept_window(connection, request, *numbers, more=more)
    await client.wait_for("l", "ready")
    await expect_unchanged(connection, client, "l")
    return connection, request


async def accept_window(
    connection: Connection,
    request: Any,
    *numbers: int,
    cursor: str = "c0",
    scope: str = "s",
    more: bool = False,
    resumed: bool | None = None,
) -> None:
    """Accept a subscription, and send the whole window."""
    fields = {} if resumed is None else {"resumed": resumed}
    await connection.reply_subscribed(request, scope=scope, **fields)
    insert = [(index, str(n), {"n": n}) for index, n in enumerate(numbers)]
    page = {"next": "p0"} if more else {}
    await connection.send_window(request, *insert, reset=True, cursor=cursor, more=more, **page)


async def start_count(
    server: ScriptedServer, client: Driver, *groups: Any, **options: Any
) -> tuple[Connection, Any]:
    """Let ``c`` show the number of posts from cursor ``c0`` with scope ``s``."""
    await start_client(server, client)
    await client.do("count", "c", collection="posts", options=options)
    connection = await server.accept_authenticated()
    request = await connection.receive("subscribe")
    await connection.reply_subscribed(request, scope="s")
    await connection.send_aggregate(request, *groups, reset=True, cursor="c0")
    await client.wait_for("c", "ready")
    await expect_unchanged(connection, client, "c")
    return connection, request


async def accept_join(connection: Connection, **fields: Any) -> Any:
    """Accept the next request, which must be ``join``. Return it."""
    join = await connection.receive("join")
    members = [{"id": "7", "name": "ada", "state": join.get("state", {})}]
    joined = {"room": join["room"], "participants": 1, "members": members, **fields}
    await connection.reply(join, "joined", **joined)
    return join


async def start_room(
    server: ScriptedServer, client: Driver, *, limits: Any = LIMITS, **options: Any
) -> Connection:
    """Let ``r`` join the room ``chat``. Return its connection."""
    await start_client(server, client)
    await client.do("room", "r", name="chat", options=options)
    connection = await server.accept_authenticated(limits=limits)
    await accept_join(connection)
    await client.wait_for("r", "ready")
    return connection


async def send_marker(connection: Connection, client: Driver) -> None:
    """Send a message to the client, and wait until it has handled all frames before it."""
    await connection.send({**broadcast_event("*", "marker")})
    await client.wait_for("db", "message", message="marker")


async def expect_unchanged(connection: Connection, client: Driver, source: str) -> None:
    """Check that the frames so far have changed nothing that ``source`` reports."""
    await send_marker(connection, client)
    assert not await client.collect(source, 0)


async def expect_shown(client: Driver, *numbers: int) -> None:
    """Check that the next list that ``l`` shows has the documents with these numbers."""
    documents = [[str(n), {"n": n}] for n in numbers]
    await client.expect("l", "documents", documents=documents)


async def start_list(
    server: ScriptedServer, client: Driver, **options: Any
) -> tuple[Connection, Any]:
    """Let ``l`` show the documents 1, 2 and 3 from cursor ``c0`` with scope ``s``."""
    started = await start_live(server, client, *FIRST, **options)
    await client.expect_nothing("l", 0.05)
    return started


async def resubscribe(connection: Connection, server: ScriptedServer, client: Driver) -> Any:
    """Cut a connection. Return the next one, and the request that the client sends on it."""
    connection.abort()
    connection = await accept_reconnect(server, client)
    return connection, await connection.receive("subscribe")

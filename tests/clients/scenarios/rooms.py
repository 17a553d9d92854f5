"""Rooms: members, history, broadcasts."""

from __future__ import annotations

import asyncio

from tests.clients.drivers import Driver
from tests.clients.scenarios.setup import accept_reconnect, start_client
from tests.clients.scripted_server import ScriptedServer, broadcast_event


async def room_is_joined_again_after_reconnect(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat", options={"history": 10, "state": {"mood": 1}})
    connection = await server.accept_authenticated()
    join = await connection.receive("join")
    assert (join["room"], join["history"], join["state"]) == ("chat", 10, {"mood": 1})
    assert "presence" not in join
    ada, bob = {"id": "7", "name": "ada"}, {"id": "8", "name": "bob"}
    await connection.reply(join, "joined", room="chat", participants=2, members=[ada, bob])
    await client.expect("r", "ready")
    await connection.send(broadcast_event("chat", "before", replayed=True, cursor="m1"))
    await client.expect("r", "message", message="before", replayed=True)
    await client.do("members", "r")
    await client.expect("r", "members", members=[ada, bob], participants=2)
    cleo = {"id": "9", "name": "cleo"}
    presence = {"type": "presence", "room": "chat"}
    await connection.send({**presence, "event": "joined", "member": cleo, "participants": 3})
    await client.expect("r", "presence", event="joined", id="9", members=["7", "8", "9"])
    await connection.send({**presence, "event": "left", "member": bob, "participants": 2})
    await client.expect("r", "presence", event="left", members=["7", "9"])
    typing = {**cleo, "state": {"typing": True}}
    await connection.send({**presence, "event": "updated", "member": typing, "participants": 2})
    await client.expect("r", "presence", event="updated", members=["7", "9"])
    await client.do("members", "r")
    await client.expect("r", "members", members=[ada, typing], participants=2)
    connection.abort()
    connection = await accept_reconnect(server, client)
    join = await connection.receive("join")
    # history is requested too, in case the room cannot resume from m1
    assert (join["since"], join["state"], join["history"]) == ("m1", {"mood": 1}, 10)
    joined = {"room": "chat", "participants": 1, "members": [ada], "cursor": "m2"}
    await connection.reply(join, "joined", resumed=True, **joined)
    await connection.send(broadcast_event("chat", "before", cursor="m1", replayed=True))
    await connection.send(broadcast_event("chat", "during the loss", cursor="m2", replayed=True))
    await client.expect("r", "message", message="during the loss")
    await client.do("members", "r")
    await client.expect("r", "members", members=[ada], participants=1)


async def room_is_ready_when_all_members_are_listed(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    connection = await server.accept_authenticated()
    ada, bob, cleo, dan = ({"id": id, "name": id} for id in ("ada", "bob", "cleo", "dan"))
    for attempt in range(2):
        join = await connection.receive("join")
        joined = {"room": "chat", "participants": 3, "members": [ada, dan], "more": True}
        await connection.reply(join, "joined", **joined)
        left = {"type": "presence", "room": "chat", "event": "left", "member": dan}
        await connection.send({**left, "participants": 3})
        await client.expect("r", "presence", event="left", members=["ada"])
        members = {"type": "members", "room": "chat"}
        await connection.send({**members, "members": [{**ada, "state": {}}, bob], "more": True})
        await connection.send({**members, "members": [cleo], "more": False})
        if attempt == 0:
            await client.expect("r", "ready")  # not before
        else:
            await connection.send(broadcast_event("chat", "marker"))
            await client.expect("r", "message", message="marker")
        await client.do("members", "r")
        expected = [{**ada, "state": {}}, bob, cleo]
        await client.expect("r", "members", members=expected, participants=3)
        if attempt == 0:
            connection.abort()
            connection = await accept_reconnect(server, client)


async def room_that_cannot_resume_reports_the_reason(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    connection = await server.accept_authenticated()
    join = await connection.receive("join")
    assert not {"since", "history"} & join.keys()
    joined = {"room": "chat", "participants": 0, "members": []}
    await connection.reply(join, "joined", cursor="m5", **joined)
    await client.expect("r", "ready")
    for reason, cursor in (("retention", "m9"), ("not_kept", None)):
        connection.abort()
        connection = await accept_reconnect(server, client)
        join = await connection.receive("join")
        assert join["since"] == ("m5" if cursor else "m9")
        place = {"cursor": cursor} if cursor else {}
        resync = {"resumed": False, "resync": {"reason": reason}}
        await connection.reply(join, "joined", **joined, **resync, **place)
        await client.expect("r", "resync", reason=reason)
    connection.abort()
    connection = await accept_reconnect(server, client)
    assert "since" not in await connection.receive("join")


async def broadcasts_to_the_project_and_to_the_user_are_reported(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    connection = await server.accept_authenticated()
    await client.expect("db", "status", status="live")
    await connection.send(
        broadcast_event("*", "to all"), {"type": "event", "event": "direct", "message": 1}
    )
    await client.expect("db", "message", message="to all")
    await client.expect("db", "message", message=1)


async def broadcast_is_repeated_with_its_idempotency_key(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    await client.do("broadcast", "r", message="early", tag="a")
    connection = await server.accept_authenticated()
    join = await connection.receive("join")
    await connection.reply(join, "joined", room="chat", participants=1, members=[])
    first = await connection.receive("broadcast")
    assert (first["room"], first["message"]) == ("chat", "early")
    await connection.reply(first, "sent", room="chat")
    await client.wait_for("r", "sent", tag="a")
    await client.do("broadcast", "r", message="lost?", tag="b")
    lost = await connection.receive("broadcast")
    connection.abort()  # unknown whether it was delivered: it is sent again with the same key
    connection = await accept_reconnect(server, client)
    join = await connection.receive("join")
    await connection.reply(join, "joined", room="chat", participants=1, members=[])
    again = await connection.receive("broadcast")
    assert again["message"] == "lost?"
    assert again["idempotency_key"] == lost["idempotency_key"] != first["idempotency_key"]
    await connection.reply(again, "sent", room="chat")
    await client.expect("r", "sent", tag="b")
    await client.do("broadcast", "r", message="later", tag="c")
    refused = await connection.receive("broadcast")
    await connection.reply_error(refused, "rate_limited", retry_after_ms=50)
    again = await connection.receive("broadcast")
    assert again["idempotency_key"] == refused["idempotency_key"]
    await connection.reply(again, "sent", room="chat")
    await client.expect("r", "sent", tag="c")
    await client.do("broadcast", "r", message="no", tag="d")
    await connection.reply_error(await connection.receive("broadcast"), "forbidden")
    await client.expect("r", "failed", tag="d", code="forbidden")
    await connection.receive_nothing()


async def member_state_is_sent_and_restored_after_reconnect(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    connection = await server.accept_authenticated()
    join = await connection.receive("join")
    ada = {"id": "7", "name": "ada"}
    await connection.reply(join, "joined", room="chat", participants=1, members=[ada])
    await client.expect("r", "ready")
    await client.do("state", "r", state={"typing": True})
    request = await connection.receive("state")
    assert (request["room"], request["state"]) == ("chat", {"typing": True})
    await connection.reply(request, "state", room="chat")
    await client.expect("r", "state", state={"typing": True})
    await client.do("members", "r")
    await client.expect("r", "members", members=[{**ada, "state": {"typing": True}}])
    connection.abort()
    connection = await accept_reconnect(server, client)
    assert (await connection.receive("join"))["state"] == {"typing": True}


async def left_room_is_not_joined_again(server: ScriptedServer, client: Driver) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat", options={"presence": False})
    connection = await server.accept_authenticated()
    join = await connection.receive("join")
    assert join["presence"] is False
    await connection.reply(join, "joined", room="chat", participants=0, members=[])
    await client.expect("r", "ready")
    await client.do("leave", "r")
    assert (await connection.receive("leave"))["room"] == "chat"
    await client.do("room", "q", name="other")
    await connection.receive("join")
    await client.do("leave", "q")  # before the join is answered
    assert (await connection.receive("leave"))["room"] == "other"
    await connection.send(broadcast_event("chat", "late"))
    await client.expect_nothing("r")
    await client.do("broadcast", "r", message="too late", tag="a")
    await client.expect("r", "failed", tag="a", code="closed")
    connection.abort()
    connection = await accept_reconnect(server, client)
    await connection.receive_nothing()


async def room_left_while_waiting_to_retry_is_not_joined(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="chat")
    connection = await server.accept_authenticated()
    await connection.reply_error(
        await connection.receive("join"), "rate_limited", retry_after_ms=3000
    )
    await asyncio.sleep(0.1)
    await client.do("leave", "r")
    await connection.receive("leave")
    await connection.receive_nothing(3.5)


async def refused_join_fails_the_room_and_its_broadcasts(
    server: ScriptedServer, client: Driver
) -> None:
    await start_client(server, client)
    await client.do("room", "r", name="secret")
    await client.do("broadcast", "r", message="x", tag="a")
    connection = await server.accept_authenticated()
    await connection.reply_error(await connection.receive("join"), "forbidden")
    reports = [await client.expect("r", "failed", code="forbidden") for _ in range(2)]
    assert {report.get("tag") for report in reports} == {None, "a"}
    connection.abort()
    connection = await accept_reconnect(server, client)
    await connection.receive_nothing()

"""Rooms: members, history, what is said."""

from __future__ import annotations

import asyncio

from tests.clients.drivers import Driver
from tests.clients.scenarios.steps import back, start
from tests.clients.scripted_server import Script, said


async def a_room_is_joined_again(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("room", "r", name="chat", options={"history": 10, "state": {"mood": 1}})
    connection = await server.hello()
    join = await connection.receive("join")
    assert (join["room"], join["history"], join["state"]) == ("chat", 10, {"mood": 1})
    assert "presence" not in join
    ada, bob = {"id": "7", "name": "ada"}, {"id": "8", "name": "bob"}
    await connection.answer(join, "joined", room="chat", participants=2, members=[ada, bob])
    await client.next("r", "ready")
    await connection.send(said("chat", "before", replayed=True, cursor="m1"))
    await client.next("r", "message", message="before", replayed=True)
    await client.do("members", "r")
    await client.next("r", "members", members=[ada, bob], participants=2)
    cleo = {"id": "9", "name": "cleo"}
    presence = {"type": "presence", "room": "chat"}
    await connection.send({**presence, "event": "joined", "member": cleo, "participants": 3})
    await client.next("r", "presence", event="joined", id="9", members=["7", "8", "9"])
    await connection.send({**presence, "event": "left", "member": bob, "participants": 2})
    await client.next("r", "presence", event="left", members=["7", "9"])
    typing = {**cleo, "state": {"typing": True}}
    await connection.send({**presence, "event": "updated", "member": typing, "participants": 2})
    await client.next("r", "presence", event="updated", members=["7", "9"])
    await client.do("members", "r")
    await client.next("r", "members", members=[ada, typing], participants=2)
    connection.cut()
    connection = await back(server, client)
    join = await connection.receive("join")
    # history, for the case that the room does not go back so far
    assert (join["since"], join["state"], join["history"]) == ("m1", {"mood": 1}, 10)
    joined = {"room": "chat", "participants": 1, "members": [ada], "cursor": "m2"}
    await connection.answer(join, "joined", resumed=True, **joined)
    await connection.send(said("chat", "before", cursor="m1", replayed=True))
    await connection.send(said("chat", "meanwhile", cursor="m2", replayed=True))
    await client.next("r", "message", message="meanwhile")
    await client.do("members", "r")
    await client.next("r", "members", members=[ada], participants=1)


async def a_room_that_does_not_go_back_so_far(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("room", "r", name="chat")
    connection = await server.hello()
    join = await connection.receive("join")
    assert not {"since", "history"} & join.keys()
    joined = {"room": "chat", "participants": 0, "members": []}
    await connection.answer(join, "joined", cursor="m5", **joined)
    await client.next("r", "ready")
    for reason, cursor in (("retention", "m9"), ("not_kept", None)):
        connection.cut()
        connection = await back(server, client)
        join = await connection.receive("join")
        assert join["since"] == ("m5" if cursor else "m9")
        place = {"cursor": cursor} if cursor else {}
        resync = {"resumed": False, "resync": {"reason": reason}}
        await connection.answer(join, "joined", **joined, **resync, **place)
        await client.next("r", "resync", reason=reason)
    connection.cut()
    connection = await back(server, client)
    assert "since" not in await connection.receive("join")


async def the_server_speaks(server: Script, client: Driver) -> None:
    await start(server, client)
    connection = await server.hello()
    await client.next("db", "status", status="live")
    await connection.send(said("*", "to all"), {"type": "event", "event": "direct", "message": 1})
    await client.next("db", "message", message="to all")
    await client.next("db", "message", message=1)


async def a_broadcast_is_sent_once(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("room", "r", name="chat")
    await client.do("broadcast", "r", message="early", tag="a")
    connection = await server.hello()
    join = await connection.receive("join")
    await connection.answer(join, "joined", room="chat", participants=1, members=[])
    first = await connection.receive("broadcast")
    assert (first["room"], first["message"]) == ("chat", "early")
    await connection.answer(first, "sent", room="chat")
    await client.until("r", "sent", tag="a")
    await client.do("broadcast", "r", message="lost?", tag="b")
    lost = await connection.receive("broadcast")
    connection.cut()  # whether it was sent nobody knows: its key does
    connection = await back(server, client)
    join = await connection.receive("join")
    await connection.answer(join, "joined", room="chat", participants=1, members=[])
    again = await connection.receive("broadcast")
    assert again["message"] == "lost?"
    assert again["idempotency_key"] == lost["idempotency_key"] != first["idempotency_key"]
    await connection.answer(again, "sent", room="chat")
    await client.next("r", "sent", tag="b")
    await client.do("broadcast", "r", message="no", tag="c")
    await connection.refuse(
        await connection.receive("broadcast"), "rate_limited", retry_after_ms=50
    )
    await client.next("r", "failed", tag="c", code="rate_limited")
    await connection.nothing()


async def ones_state_is_told(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("room", "r", name="chat")
    connection = await server.hello()
    join = await connection.receive("join")
    ada = {"id": "7", "name": "ada"}
    await connection.answer(join, "joined", room="chat", participants=1, members=[ada])
    await client.next("r", "ready")
    await client.do("state", "r", state={"typing": True})
    request = await connection.receive("state")
    assert (request["room"], request["state"]) == ("chat", {"typing": True})
    await connection.answer(request, "state", room="chat")
    await client.next("r", "state", state={"typing": True})
    await client.do("members", "r")
    await client.next("r", "members", members=[{**ada, "state": {"typing": True}}])
    connection.cut()
    connection = await back(server, client)
    assert (await connection.receive("join"))["state"] == {"typing": True}


async def leaves_a_room(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("room", "r", name="chat", options={"presence": False})
    connection = await server.hello()
    join = await connection.receive("join")
    assert join["presence"] is False
    await connection.answer(join, "joined", room="chat", participants=0, members=[])
    await client.next("r", "ready")
    await client.do("leave", "r")
    assert (await connection.receive("leave"))["room"] == "chat"
    await client.do("room", "q", name="other")
    await connection.receive("join")
    await client.do("leave", "q")  # while the answer is under way
    assert (await connection.receive("leave"))["room"] == "other"
    await connection.send(said("chat", "late"))
    await client.nothing("r")
    await client.do("broadcast", "r", message="too late", tag="a")
    await client.next("r", "failed", tag="a", code="closed")
    connection.cut()
    connection = await back(server, client)
    await connection.nothing()


async def a_room_that_is_left_while_it_waits_stays_so(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("room", "r", name="chat")
    connection = await server.hello()
    await connection.refuse(await connection.receive("join"), "rate_limited", retry_after_ms=400)
    await asyncio.sleep(0.1)
    await client.do("leave", "r")
    await connection.receive("leave")
    await connection.nothing(0.8)


async def a_refused_room_is_told(server: Script, client: Driver) -> None:
    await start(server, client)
    await client.do("room", "r", name="secret")
    await client.do("broadcast", "r", message="x", tag="a")
    connection = await server.hello()
    await connection.refuse(await connection.receive("join"), "forbidden")
    notes = [await client.next("r", "failed", code="forbidden") for _ in range(2)]
    assert {note.get("tag") for note in notes} == {None, "a"}
    connection.cut()
    connection = await back(server, client)
    await connection.nothing()

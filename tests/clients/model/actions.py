"""The actions of histories. An action depends on its random numbers and the present state."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.clients.model.data import TEAMS
from tests.clients.model.program import ListState, RoomState
from tests.clients.model.server import ROOMS

if TYPE_CHECKING:
    from tests.clients.model.history import History

Random = random.Random
ACTIONS: dict[str, Callable[[History, Random], None]] = {}
WEIGHTS: dict[str, float] = {}
USERS = ["ada", "bob", None]
GROUPS = ["a", "b"]


def action(weight: float) -> Callable[[Callable[[History, Random], None]], Any]:
    """Register an action with its relative frequency."""

    def register(function: Callable[[History, Random], None]) -> Any:
        ACTIONS[function.__name__] = function
        WEIGHTS[function.__name__] = weight
        return function

    return register


def _links(history: History) -> list[Any]:
    return [link for link in history.server.links.values() if link.opened and not link.closed]


# time


@action(8)
def wait(history: History, numbers: Random) -> None:
    history.advance(numbers.choice([0.0, 0.05, 0.3, 1.0, 3.0, 10.0, 40.0]))


@action(1)
def wait_long(history: History, numbers: Random) -> None:
    history.advance(numbers.choice([100.0, 250.0, 400.0]))


@action(2)
def rest(history: History, numbers: Random) -> None:
    history.rest()
    revive(history, numbers)


# the program


def is_closed(history: History) -> bool:
    return history.program.status == "closed"


@action(4)
def watch(history: History, numbers: Random) -> None:
    if is_closed(history):
        return
    options: dict[str, Any] = {"filters": {}}
    if numbers.random() < 0.5:
        options["filters"]["group"] = numbers.choice(GROUPS)
    subscribe(history, numbers, "watch", options)


def subscribe(history: History, numbers: Random, op: str, options: dict[str, Any]) -> None:
    history.count += 1
    id = f"{op}{history.count}"
    options["filters"]["id"] = id
    throws = numbers.random() < 0.1
    call = history.program.call(op, id, history.client.now)
    history.program.lists[id] = ListState(id, op == "watch", options, throws)
    fields = {"collection": "posts", "options": options, "throws": throws}
    history.do(op, id=id, call=call.number, **fields)
    history.advance(0.0)


@action(0.3)
def mount_many(history: History, numbers: Random) -> None:
    for _ in range(120):
        if not is_closed(history):
            subscribe(history, numbers, "live", {"filters": {"group": "a"}})


@action(2)
def stop(history: History, numbers: Random) -> None:
    lists = history.program.open_lists()
    if lists and not is_closed(history):
        item = numbers.choice(lists)
        item.stopped = True
        history.do("stop", id=item.id)
        history.advance(0.0)


@action(2)
def ready(history: History, numbers: Random) -> None:
    objects: list[ListState | RoomState] = [
        *(each for each in history.program.open_lists() if not each.is_watch),
        *history.program.open_rooms(),
    ]
    if objects and not is_closed(history):
        item = numbers.choice(objects)
        call = history.program.call("ready", item.id, history.client.now)
        history.do("ready", id=item.id, call=call.number)
        history.advance(0.0)


@action(4)
def room(history: History, numbers: Random) -> None:
    opened = {each.name for each in history.program.open_rooms()}
    free = [name for name in ROOMS if name not in opened]
    if not free or is_closed(history):
        return
    history.count += 1
    id, name = f"room{history.count}", numbers.choice(free)
    call = history.program.call("room", id, history.client.now)
    options: dict[str, Any] = {}
    item = history.program.rooms[id] = RoomState(id, name, numbers.random() < 0.1)
    if numbers.random() < 0.4:
        options["history"] = 5
    if numbers.random() < 0.4:
        options["state"] = _payload(history, call, id)
        item.states.append((call, options["state"]))
    fields = {"name": name, "options": options, "throws": item.throws}
    history.do("room", id=id, call=call.number, **fields)
    history.advance(0.0)


def _payload(history: History, call: Any, id: str) -> dict[str, Any]:
    fields = {"call": call.number, "room": id, "user": call.user, "known": call.known}
    return {"text": f"call {call.number}", **fields}


@action(7)
def broadcast(history: History, numbers: Random) -> None:
    rooms = history.program.open_rooms()
    if not rooms or is_closed(history):
        return
    item = numbers.choice(rooms)
    for _ in range(numbers.choice([1, 1, 1, 2, 3, 30])):
        call = history.program.call("broadcast", item.id, history.client.now)
        message = _payload(history, call, item.id)
        history.do("broadcast", id=item.id, call=call.number, message=message)
        if numbers.random() < 0.3:
            history.advance(numbers.choice([0.0, 0.02]))
    history.advance(0.0)


@action(4)
def set_state(history: History, numbers: Random) -> None:
    rooms = history.program.open_rooms()
    if not rooms or is_closed(history):
        return
    item = numbers.choice(rooms)
    for _ in range(numbers.choice([1, 1, 2, 50])):
        call = history.program.call("state", item.id, history.client.now)
        state = _payload(history, call, item.id)
        item.states.append((call, state))
        history.do("state", id=item.id, call=call.number, state=state)
    history.advance(0.0)


@action(1.5)
def leave(history: History, numbers: Random) -> None:
    rooms = history.program.open_rooms()
    if rooms and not is_closed(history):
        item = numbers.choice(rooms)
        item.left = True
        history.do("leave", id=item.id)
        history.advance(0.0)


@action(0.5)
def close(history: History, numbers: Random) -> None:
    if is_closed(history):
        return
    history.do("close")
    history.advance(2.0)
    revive(history, numbers)


@action(2)
def revive(history: History, numbers: Random) -> None:
    """Connect again after the client was closed. In Python this needs a new client."""
    if not is_closed(history):
        return
    if history.client.language == "python":
        history.program.forget()
    for item in history.program.rooms.values():
        item.states.clear()
    history.do("connect")
    history.advance(0.0)


@action(2)
def change_tokens(history: History, numbers: Random) -> None:
    history.token_mode = numbers.choice(["work", "fail", "hang"])


# the documents and the rooms


@action(14)
def write(history: History, numbers: Random) -> None:
    table = history.server.table
    changes: list[Any] = []
    rows = dict(table.rows)
    for _ in range(numbers.choice([1, 1, 1, 2, 6])):
        kind = numbers.choice(["create", "create", "update", "update", "delete"])
        if kind == "create" or not rows:
            id = table.new_id()
            rows[id] = _row(numbers, id)
        elif kind == "update":
            id = numbers.choice(list(rows))
            changed = numbers.choice(["n", "title", "group", "owner", "team"])
            rows[id] = {**rows[id], changed: _row(numbers, id)[changed]}
        else:
            id = numbers.choice(list(rows))
            del rows[id]
        changes.append((id, rows.get(id)))
    history.note(f"server: {changes}")
    history.server.write(*changes)
    for item in history.program.lists.values():
        for link in _links(history):
            subs = link.subscriptions.values()
            # the pages show some rows before and others after these changes
            is_mixed = any(sub.waiting is not None and not sub.is_moving for sub in subs)
            item.strict = item.strict and not is_mixed
    history.advance(0.0)


def _row(numbers: Random, id: str) -> dict[str, Any]:
    return {
        "id": id,
        "n": numbers.choice([None, -1, 0, 2, 10, 10, 33]),
        "title": numbers.choice(["", "10", "9", "a", "B", "b"]),
        "group": numbers.choice(GROUPS),
        "owner": numbers.choice([None, None, None, "ada", "bob"]),
        "team": numbers.choice([None, None, *TEAMS]),
    }


@action(0.5)
def forget_log(history: History, numbers: Random) -> None:
    table = history.server.table
    table.forgotten = table.head - numbers.randint(0, 3) if table.head > 3 else table.forgotten


@action(4)
def other_member(history: History, numbers: Random) -> None:
    data = history.server.rooms[numbers.choice(list(ROOMS))]
    kind = numbers.choice(["say", "say", "join", "state", "leave"])
    if kind == "say":
        history.count += 1
        message = {"text": f"other {history.count}", "call": 0, "room": ""}
        sent = data.publish(message, "cleo", None, history.server.now)
        assert sent is not None
        history.promises.remember(data, sent)
        history.server.fan_out(data, sent)
    else:
        member = numbers.choice(["cleo", "dan", "eve"])
        state = None if kind == "leave" else {"mood": numbers.randrange(9)}
        history.server.show_member(data, member, state)
    history.advance(0.0)


# the server and the network


@action(6)
def cut(history: History, numbers: Random) -> None:
    for link in _links(history):
        history.note("network: cut")
        history.server.cut(link, numbers.choice([1006, 1006, 1012, 1001]))
    history.advance(numbers.choice([0.0, 0.0, 1.0]))


@action(5)
def close_connection(history: History, numbers: Random) -> None:
    code = numbers.choice([4100, 4101, 4110, 4120, 4121, 4130, 4131, 4200, 4200, 4201, 4504])
    retry = numbers.choice([None, None, 400, 3000, 20000])
    for link in _links(history):
        history.note(f"server: close {code} {retry}")
        history.server.close(link, code, retry, numbers.random() < 0.7)
    history.advance(0.0)


@action(0.6)
def refuse_client(history: History, numbers: Random) -> None:
    for link in _links(history):
        history.server.close(link, numbers.choice([4500, 4503, 4505]), None, True)
    history.advance(numbers.choice([0.0, 3.0]))


@action(3)
def change_user(history: History, numbers: Random) -> None:
    history.server.user = numbers.choice(USERS)
    history.note(f"server: the user is {history.server.user}")


@action(3)
def change_network(history: History, numbers: Random) -> None:
    history.server.network = numbers.choice(["up", "up", "down", "silent"])


@action(3)
def go_deaf(history: History, numbers: Random) -> None:
    for link in _links(history):
        setattr(link, numbers.choice(["deaf", "mute"]), True)


@action(4)
def change_speed(history: History, numbers: Random) -> None:
    server = history.server
    server.latency = numbers.choice([0.0, 0.0, 0.05, 2.0])
    server.thinking = numbers.choice([0.0, 0.0, 0.02, 0.5, 4.0])
    server.slow_snapshots = numbers.random() < 0.5
    server.batches = numbers.random() < 0.5
    server.repeats = numbers.random() < 0.5
    for link in _links(history):
        link.latency, link.thinking = server.latency, server.thinking


REFUSALS: dict[str, list[tuple[str, int | None]]] = {
    "auth": [("internal_error", None), ("internal_error", 2000), ("authentication_failed", None)],
    "subscribe": [
        ("forbidden", None),
        ("invalid_filter", None),
        ("rate_limited", 700),
        ("internal_error", None),
        ("internal_error", 5000),
        ("limit_exceeded", None),
    ],
    "join": [("forbidden", None), ("rate_limited", 700), ("internal_error", None)],
    "broadcast": [("forbidden", None), ("too_large", None), ("rate_limited", 1200)],
    "state": [("forbidden", None), ("too_large", None), ("rate_limited", 1200)],
}


@action(7)
def refuse(history: History, numbers: Random) -> None:
    type = numbers.choice(["auth", *["subscribe", "join", "broadcast", "state"] * 3])
    refusal = numbers.choice(REFUSALS[type])
    history.note(f"server: refuses {type} with {refusal}")
    count = numbers.choice([1, 1, 2, 3]) if refusal[1] is not None else 1
    history.server.refusals.setdefault(type, []).extend([refusal] * count)


@action(2)
def fail_subscription(history: History, numbers: Random) -> None:
    for link in _links(history):
        if link.subscriptions:
            name = numbers.choice(list(link.subscriptions))
            sub = link.subscriptions.pop(name)
            frame = {"type": "error", "code": "internal_error", "message": "No."}
            failed = lambda: history.promises.failed(link, sub.id)  # noqa: B023, E731
            history.server.send(link, {**frame, "subscription": name}, failed)
    history.advance(0.0)

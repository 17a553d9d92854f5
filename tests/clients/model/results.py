"""Windows and aggregates, which the server's model keeps up to date for its clients."""

from __future__ import annotations

import difflib
import json
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.clients.model.data import MAX_DOCUMENTS
from tests.clients.model.links import Frame, Link, ServedSubscription, scope_of

if TYPE_CHECKING:
    from tests.clients.model.server import ModelServer

# seconds between the parts of a change, and before the first result
DELAYS = [0.0, 0.01, 0.3, 1.5]
NOTHING: dict[str, Any] = {"documents": [], "groups": [], "more": False, "next": None}


def refusal(sub: ServedSubscription) -> str | None:
    """Return the code of the error with which a query is refused, if it is wrong."""
    if not sub.query.is_valid():
        return "bad_request"
    return "limit_exceeded" if (sub.query.limit or 0) > MAX_DOCUMENTS else None


def accept(
    server: ModelServer, link: Link, sub: ServedSubscription, old: ServedSubscription | None
) -> None:
    """Answer a request with its first result, or with what has changed since the last one."""
    request, table = sub.request, server.table
    scope = scope_of(sub.query)
    fields: Frame = {"collection": "posts", "subscription": sub.name, "durable": True}
    fields |= {"filters": request["filters"], "scope": scope}
    since = request.get("since")
    position = None
    if since is not None:
        reason = server.resync_reason(request, scope)
        if reason is None:
            fields["resumed"] = True
            position = int(since.split(":")[1])
        else:
            fields |= {"resumed": False, "resync": {"reason": reason}}
    server.accept(link, request, fields)
    is_extended = old is not None and _is_extension(old, sub)
    sub.is_busy = True

    def load() -> None:
        if link.subscriptions.get(sub.name) is not sub:
            return
        sub.is_busy = False
        if position is not None and _is_unchanged(server, sub, position):
            sub.sent = sub.query.result(table.rows)
            send_cursor(server, link, sub)
        elif is_extended:
            assert old is not None
            sub.sent = old.sent
            if sub.sent == sub.query.result(table.rows) and server.random.random() < 0.5:
                send_cursor(server, link, sub)
            else:
                follow(server, link, sub, is_due=True)
        else:
            follow(server, link, sub)

    delay = server.random.choice(DELAYS) if server.slow_snapshots else 0.0
    if delay:
        server.call_at(server.now + delay, load)
    else:
        load()


def _is_extension(old: ServedSubscription, new: ServedSubscription) -> bool:
    """Return whether only the limit of a window is another one, whose documents have arrived."""
    if old.is_busy or old.sent is None or not (old.query.is_window and new.query.is_window):
        return False
    names = ("filters", "fields", "document")
    is_same = all(old.request.get(name) == new.request.get(name) for name in names)
    query, other = old.query, new.query
    return (
        is_same
        and (query.order, query.after, query.teams) == (other.order, other.after, other.teams)
        and not old.owes_scope
    )


def _is_unchanged(server: ModelServer, sub: ServedSubscription, position: int) -> bool:
    """Return whether no row that matched has changed since a position."""
    changes = server.table.log[position:]
    matches = sub.query.matches
    return not any(matches(change.before) or matches(change.after) for change in changes)


def send_cursor(server: ModelServer, link: Link, sub: ServedSubscription) -> None:
    """Let the client know that nothing has changed up to now."""
    cursor = server.table.cursor(server.table.head)
    frame = {"type": "cursor", "subscription": sub.name, "cursor": cursor}
    server.send(link, frame, arrival(server, sub))


def arrival(server: ModelServer, sub: ServedSubscription) -> Callable[[], None]:
    """Return a function to call when the client has got the present result."""
    result, request = sub.sent, sub.request
    return lambda: server.observer.result_arrived(sub.id, request, result)


def follow(
    server: ModelServer,
    link: Link,
    sub: ServedSubscription,
    position: int | None = None,
    *,
    is_due: bool = False,
    at_once: bool = False,
) -> list[tuple[Frame, Callable[[], None] | None]]:
    """Send a client what has changed up to a position; with ``at_once``, return the frames.

    With ``is_due``, a frame is sent also if nothing has changed.
    """
    if sub.is_busy:
        return []  # it is compared again afterwards
    table, numbers = server.table, server.random
    position = table.head if position is None else position
    result = sub.query.result(table.versions[position])
    if sub.sent is not None and numbers.random() < 0.1:
        sub.sent = None  # the server may always send everything
    parts = create_parts(numbers, sub, result, is_due=is_due)
    if parts is None:
        if numbers.random() < 0.2 and not at_once:
            send_cursor(server, link, sub)
        return []
    last = parts[-1]
    last["cursor"] = table.cursor(position)
    if sub.owes_scope:
        last["scope"] = scope_of(sub.query)
    sub.sent, sub.owes_scope = result, False
    callbacks = [None] * (len(parts) - 1) + [arrival(server, sub)]
    frames = list(zip(parts, callbacks, strict=True))
    if at_once:
        return frames
    sub.is_busy = True

    def send() -> None:
        if link.subscriptions.get(sub.name) is not sub or sub.sent is not result:
            return
        frame, callback = frames.pop(0)
        server.send(link, frame, callback)
        if not frames:
            sub.is_busy = False
            follow(server, link, sub)
        elif server.slow_snapshots:
            server.call_at(server.now + numbers.choice(DELAYS), send)
        else:
            send()

    send()
    return []


def create_parts(
    numbers: random.Random, sub: ServedSubscription, result: Any, *, is_due: bool
) -> list[Frame] | None:
    """Return the frames that change what a client has; None if there is no change."""
    is_reset = sub.sent is None
    old = NOTHING if is_reset else sub.sent
    name = {"type": "window" if sub.query.is_window else "aggregate", "subscription": sub.name}
    if old == result and not is_reset and not is_due and not sub.owes_scope:
        return None
    size = numbers.choice([1, 2, 100])
    if sub.query.is_window:
        remove, insert = _differences(numbers, old["documents"], result["documents"])
        if is_reset:
            remove = []
        parts = [
            {"remove": remove[n : n + size], "insert": []} for n in range(0, len(remove), size)
        ]
        if parts and insert and size > 1:
            parts[-1]["insert"] = [insert.pop(0)]
        parts += [
            {"remove": [], "insert": insert[n : n + size]} for n in range(0, len(insert), size)
        ]
        parts = parts or [{"remove": [], "insert": []}]
        last = {"more": result["more"]}
        if result["more"] and (is_reset or result["next"] != old["next"]):
            last["next"] = result["next"]
    else:
        groups = _changed_groups(numbers, old["groups"], result["groups"])
        parts = [{"groups": groups[n : n + size]} for n in range(0, len(groups), size)]
        parts = parts or [{"groups": []}]
        last = {}
    for part in parts:
        part |= name
        if part is not parts[-1]:
            part["partial"] = True
    parts[-1] |= last
    if is_reset:
        parts[0]["reset"] = True
    return parts


def _differences(numbers: random.Random, old: list[Any], new: list[Any]) -> tuple[Any, Any]:
    """Return the ids to remove from a list, and the documents to insert at their indexes."""
    texts = [[json.dumps(each) for each in documents] for documents in (old, new)]
    matcher = difflib.SequenceMatcher(None, *texts, autojunk=False)
    kept = {
        block.b + n: block.a + n
        for block in matcher.get_matching_blocks()
        for n in range(block.size)
    }
    # a document that is removed may be inserted again, also if it is the same
    kept = {index: place for index, place in kept.items() if numbers.random() < 0.9}
    remove = [id for place, (id, _) in enumerate(old) if place not in kept.values()]
    documents = [[index, {"id": id, "data": data}] for index, (id, data) in enumerate(new)]
    return remove, [each for each in documents if each[0] not in kept]


def _changed_groups(numbers: random.Random, old: list[Any], new: list[Any]) -> list[Any]:
    """Return the groups that have changed, some that have not, and those that are gone."""
    changed = [group for group in new if group not in old or numbers.random() < 0.1]
    keys = [group.get("key") for group in new]
    gone = [{"key": group["key"], "count": 0} for group in old if group.get("key") not in keys]
    groups = [_on_the_wire(group) for group in changed] + gone
    numbers.shuffle(groups)
    return groups


def _on_the_wire(group: dict[str, Any]) -> dict[str, Any]:
    """Return a group with averages as sums and numbers of values."""
    if "avg" not in group:
        return group
    averages = {}
    for name, average in group["avg"].items():
        # the number of values is not known here, and does not matter
        parts = {"sum": None, "n": 0} if average is None else {"sum": average * 4, "n": 4}
        averages[name] = parts
    return {**group, "avg": averages}

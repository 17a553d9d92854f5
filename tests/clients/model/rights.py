"""Rights that change while clients are connected, or away: the documents of teams are shown."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from tests.clients.model import results
from tests.clients.model.actions import Random, action
from tests.clients.model.data import TEAMS, Query
from tests.clients.model.links import Link, ServedSubscription, scope_of
from tests.clients.model.promises import IN_BAND

if TYPE_CHECKING:
    from tests.clients.model.history import History
    from tests.clients.model.server import ModelServer


@action(14)
def change_rights(history: History, numbers: Random) -> None:
    server = history.server
    teams = frozenset(team for team in TEAMS if numbers.random() < 0.5)
    if teams == server.table.rights[-1]:
        return
    history.note(f"server: the teams are {sorted(teams)}")
    server.table.grant(teams)
    for link in server.links.values():
        for sub in list(link.subscriptions.values()):
            _follow(server, link, sub, teams)
    history.advance(numbers.choice([0.0, 0.0, 0.3]))


def _follow(
    server: ModelServer, link: Link, sub: ServedSubscription, teams: frozenset[str]
) -> None:
    """Send a subscription what its new rights show and hide."""
    query = dataclasses.replace(sub.query, teams=teams)
    if query.has_result:
        _follow_result(server, link, sub, query)
        return
    new = dataclasses.replace(sub, query=query, waiting=None, is_moving=False)
    # this ends the snapshot or the move that is being sent
    link.subscriptions[sub.name] = new
    if not sub.transitions or sub.waiting is not None or server.random.random() < 0.3:
        _resync(server, link, new)
    else:
        _move(server, link, new, sub.query)


def _follow_result(server: ModelServer, link: Link, sub: ServedSubscription, query: Query) -> None:
    """Send the difference that new rights make for a window or aggregates, with the new scope."""
    new = dataclasses.replace(sub, query=query, owes_scope=True)
    # this ends the change that is being sent
    link.subscriptions[sub.name] = new
    if sub.is_busy:
        new.is_busy, new.sent = False, None
    results.follow(server, link, new)


def _resync(server: ModelServer, link: Link, sub: ServedSubscription) -> None:
    frame = {"type": "resync", "subscription": sub.name, "reason": IN_BAND}
    frame["scope"] = scope_of(sub.query)
    server.forget_events(sub.name)
    if sub.transitions:  # it is a list, which has asked for a snapshot
        server.send(link, frame)
        server.send_snapshot(link, sub)
    else:
        position = server.table.head
        frame["cursor"] = server.table.cursor(position)
        server.send(link, frame, lambda: server.observer.resync_arrived(sub.id, position))


def _move(server: ModelServer, link: Link, sub: ServedSubscription, old: Query) -> None:
    """Send the documents that enter and leave, in parts between which time may pass."""
    table = server.table
    moved: list[tuple[str, Any]] = []
    for id, row in table.rows.items():
        if old.matches(row) and not sub.query.matches(row):
            moved.append(("left", id))
        elif sub.query.matches(row) and not old.matches(row):
            moved.append(("entered", {"id": id, "data": sub.query.data(row)}))
    cursor = table.cursor(table.head)
    sub.waiting, sub.is_moving = [], True
    is_slow = server.random.random() < 0.6

    def send_part() -> None:
        nonlocal moved
        if link.subscriptions.get(sub.name) is not sub:
            return
        size = server.random.randint(1, 2) if is_slow else len(moved)
        part, moved = moved[:size], moved[size:]
        frame: dict[str, Any] = {"type": "moved", "subscription": sub.name, "cursor": cursor}
        for key in ("left", "entered"):
            frame[key] = [each for kind, each in part if kind == key]
        if moved:
            server.send(link, {**frame, "more": True})
            server.call_at(server.now + server.random.choice([0.0, 0.3, 1.5]), send_part)
        else:
            server.send(link, {**frame, "scope": scope_of(sub.query), "more": False})
            server.send_waiting(link, sub)

    send_part()

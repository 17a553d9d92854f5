"""Connections and subscriptions as the server's model sees them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.clients.model.data import Aggregate, Change, Query

Frame = dict[str, Any]


class Rate:
    """A token bucket."""

    def __init__(self, per_second: float, burst: float, now: float) -> None:
        self._per_second, self._burst = per_second, burst
        self._tokens, self._at = burst, now

    def take(self, now: float) -> int | None:
        """Take a token; without one, return the milliseconds until there is one again."""
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens >= 1 - 1e-6:
            self._tokens -= 1
            return None
        return int((1 - self._tokens) / self._per_second * 1000) + 1


@dataclass
class ServedSubscription:
    """One subscription of a connection."""

    name: str
    # the program's name for it
    id: str
    query: Query
    transitions: bool
    # events that wait until the pages of a snapshot or the parts of a move are sent; None if none
    # are being sent
    waiting: list[tuple[Change, str]] | None = None
    # whether these are parts of a move, whose documents are all read at once
    is_moving: bool = False
    # of a window or aggregates: the request, what the client has when all that was sent has
    # arrived (None before the first result), and whether parts of a change are being sent
    request: Frame = field(default_factory=dict)
    sent: Any = None
    is_busy: bool = False
    # whether the client must be sent the scope with the next change
    owes_scope: bool = False

    def event(self, change: Change) -> str | None:
        """Return the name of the event that a change is for this subscription, if any."""
        before, after = map(self.query.matches, (change.before, change.after))
        if change.after is None:
            return "deleted" if before else None
        if change.before is None:
            return "created" if after else None
        if not self.transitions:
            return "updated" if after else None
        return {(True, True): "updated", (False, True): "entered", (True, False): "left"}.get(
            (before, after)
        )


@dataclass
class Link:
    """One connection."""

    socket: int
    # seconds that frames take to the client
    latency: float
    # seconds that the server takes for each request
    thinking: float
    # whether the client has received that it is open
    opened: bool = False
    user: str | None = None
    authenticated: bool = False
    connection: str = ""
    # whether what the client sends is lost
    deaf: bool = False
    # whether what the server sends is lost
    mute: bool = False
    closed: bool = False
    # when the last frame arrives that was sent
    last_due: float = 0.0
    # when the last request is handled that was received
    next_request: float = 0.0
    subscriptions: dict[str, ServedSubscription] = field(default_factory=dict)
    # names of rooms, and whether the connection is listed there
    rooms: dict[str, bool] = field(default_factory=dict)
    rates: dict[str, Rate] = field(default_factory=dict)
    refusals_in_row: int = 0
    # whether a token of another user was refused
    is_renewal_refused: bool = False


def create_query(request: Frame, user: str | None, teams: frozenset[str]) -> Query:
    """Return what a ``subscribe`` frame asks for."""
    window = request.get("window")
    fields = request.get("fields")
    return Query(
        user=user,
        group=request.get("filters", {}).get("group"),
        fields=None if fields is None else tuple(fields),
        is_window=window is not None,
        **create_options(window or {}),
        aggregate=create_aggregate(request.get("aggregate")),
        teams=teams,
    )


def create_options(window: Frame) -> dict[str, Any]:
    """Return the options of a window, of which the order may be a string or a list."""
    order = window.get("order") or ()
    order = tuple(order.split(",")) if isinstance(order, str) else tuple(order)
    return {"order": order, "limit": window.get("limit"), "after": window.get("after")}


def create_aggregate(options: Frame | None) -> Aggregate | None:
    """Return what is aggregated: each option is a name, several names, or missing."""
    if options is None:
        return None
    names = {}
    for kind in ("group_by", "sum", "avg", "min", "max"):
        value = options.get(kind) or ()
        names[kind] = (value,) if isinstance(value, str) else tuple(value)
    return Aggregate(**names)


def scope_of(query: Query) -> str:
    """Return the scope of a subscription."""
    return f"{query.user}/{query.group}/{query.fields}/{sorted(query.teams)}"

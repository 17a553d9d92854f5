"""The calls of the program, and the state that its client has reported."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.clients.model.data import Query
from tests.clients.model.links import Frame, create_query

# refusals that are final
FINAL = ("forbidden", "invalid_filter", "limit_exceeded", "too_large", "bad_request")


class BrokenPromise(AssertionError):
    """The client has broken a promise."""


@dataclass
class Call:
    """A call of the program, which must settle once."""

    number: int
    kind: str
    # the object that it was made on
    target: str
    at: float
    # the user that the client showed
    user: str | None
    # whether the client had been authenticated
    known: bool
    settled: bool = False
    error: str | None = None


@dataclass
class ListState:
    """A live list or a watch."""

    id: str
    is_watch: bool
    # options that the server has accepted, or the first ones
    options: dict[str, Any]
    throws: bool
    # options of an update that has not settled, and its call
    new_options: dict[str, Any] | None = None
    update: Call | None = None
    # options of an update that failed because the client was closed
    possible_options: dict[str, Any] | None = None
    stopped: bool = False
    # whether the server has refused it
    refused: bool = False
    # the latest version of the table that was shown, or the position of the last event
    version: int = 0
    # whether each list that is shown must be one that the server had at some time
    strict: bool = True
    # whether a snapshot has begun with an incomplete or mixed state
    accepted: bool = False
    # of a watch: the teams whose rows its events concern, and the positions of `resync` frames
    # that it has not reported yet
    teams: frozenset[str] = frozenset()
    resyncs: list[int] = field(default_factory=list)
    # whether the last complete result that has arrived was a window or aggregates
    has_result: bool = False
    # whether the other kind of result has arrived in the same moment
    is_mixed: bool = False
    # the last request that the server has accepted
    accepted_request: Any = None
    # the request that this result answers; None before one has arrived
    answered: Any = None
    # results that have arrived, and were not compared with what the client shows
    arrived: list[Any] = field(default_factory=list)
    # what the client has shown last
    shown: Any = None

    def asks_for(self, request: Frame) -> bool:
        """Return whether a request has the options that the server has accepted, or the first."""
        return signature_of(request_of(self.options)) == signature_of(request)

    def queries(self, user: str | None, *rights: frozenset[str]) -> list[Query]:
        """Return what the list may show now, with any of these rights."""
        options = (self.options, self.new_options, self.possible_options)
        wanted = [each for each in options if each is not None]
        return [query_of(each, user, teams) for each in wanted for teams in rights]


@dataclass
class RoomState:
    """A room that the program has joined."""

    id: str
    name: str
    throws: bool
    left: bool = False
    refused: bool = False
    # position of the last message that arrived; None before the first one
    last: int | None = None
    # states that were set, oldest first: (call, state)
    states: list[tuple[Call, Any]] = field(default_factory=list)
    # calls of the broadcasts that the server has accepted, and the sockets on which they arrived
    accepted: list[tuple[int, int]] = field(default_factory=list)


def query_of(options: dict[str, Any], user: str | None, teams: frozenset[str]) -> Query:
    """Return the query of a list with these options."""
    return create_query(request_of(options), user, teams)


def request_of(options: dict[str, Any]) -> Frame:
    """Return the keys of a ``subscribe`` frame that say which result a list shows."""
    request = {name: options[name] for name in ("filters", "fields") if options.get(name)}
    if options.get("is_count"):
        return {**request, "aggregate": options}
    window = {name: options.get(name) for name in ("order", "limit", "after")}
    window = {name: value for name, value in window.items() if value is not None}
    return {**request, "window": window} if window else request


def signature_of(request: Frame) -> Any:
    """Return what is the same for two ``subscribe`` frames that ask for the same result."""
    return request["filters"], create_query(request, None, frozenset())


class Program:
    """The calls, lists and rooms of the program."""

    def __init__(self) -> None:
        self.calls: dict[int, Call] = {}
        self.lists: dict[str, ListState] = {}
        self.rooms: dict[str, RoomState] = {}
        # the status of the client
        self.status = "idle"
        # the user that the client shows
        self.user: str | None = None
        # whether `user` is known: the client was authenticated, and not refused for good since
        self.known = False
        # number of exceptions that the program has raised, and of errors that reported one
        self.mistakes = 0
        self.reported_mistakes = 0

    def call(self, kind: str, target: str, at: float) -> Call:
        number = len(self.calls) + 1
        call = self.calls[number] = Call(number, kind, target, at, self.user, self.known)
        return call

    def open_lists(self) -> list[ListState]:
        return [each for each in self.lists.values() if not each.stopped and not each.refused]

    def open_rooms(self) -> list[RoomState]:
        return [each for each in self.rooms.values() if not each.left and not each.refused]

    def forget(self) -> None:
        """Forget all lists and rooms, as a new client does not know them."""
        self.lists.clear()
        self.rooms.clear()
        self.status, self.user, self.known = "idle", None, False

    def change_user(self, user: str | None) -> None:
        """Handle that the client shows another user."""
        if self.known and user != self.user:
            self._forget_answers()
        self.user = user

    def refuse(self) -> None:
        """Handle that the client was refused for good: its next user is a new one."""
        self.known = False
        self._forget_answers()

    def _forget_answers(self) -> None:
        for each in self.lists.values():
            each.accepted = False
            each.answered = None
            each.arrived.clear()
        for room in self.rooms.values():
            room.last = None
            room.states.clear()

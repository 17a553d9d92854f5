"""Check what a client does against the promises that it gives its user."""

from __future__ import annotations

import math
from typing import Any

from tests.clients.model.data import Broadcast, Query, RoomData, Table
from tests.clients.model.links import Frame, Link
from tests.clients.model.program import (
    FINAL,
    BrokenPromise,
    Call,
    ListState,
    Program,
    RoomState,
    query_of,
    request_of,
    signature_of,
)

# seconds by which timers may be early
TOLERANCE = 0.002
# the reason of `resync` frames, which `subscribed` never has
IN_BAND = "limit_exceeded"
NEXT_STATUS = {
    "idle": {"connecting"},
    "connecting": {"live", "waiting", "closed"},
    "live": {"waiting", "closed", "connecting"},
    "waiting": {"connecting", "closed"},
    "closed": {"connecting"},
}


class Promises:
    """Raises `BrokenPromise` if the client sends, receives or reports something wrong."""

    def __init__(self, program: Program, table: Table, rooms: dict[str, RoomData]) -> None:
        self.program = program
        self.table = table
        self.rooms = rooms
        # the last `subscribe` of each list on each connection: (options, outcome)
        self._subscribed: dict[tuple[int, str], tuple[dict[str, Any], str]] = {}
        # requests that were refused for good
        self._refused: set[str] = set()
        # time before which a request must not be sent again, by connection and request
        self._not_before: dict[tuple[int, str], float] = {}
        # time before which the client must not connect; None if it must not at all
        self._connect_not_before: float | None = 0.0
        # number of the last event whose order matters
        self._number = 0
        # calls of states with which a room was not joined
        self._lost_states: set[int] = set()
        # order in which broadcasts were sent first on a connection, by socket and call, and in
        # which refusals of them arrived, by call
        self._sent_at: dict[tuple[int, int], int] = {}
        self._refused_at: dict[int, int] = {}
        # the position of each message, by room and message
        self._positions: dict[tuple[str, str], int] = {}

    def fail(self, message: str) -> None:
        raise BrokenPromise(message)

    def check(self, condition: object, message: str) -> None:
        if not condition:
            self.fail(message)

    # what the client sends

    def connected(self, at: float) -> None:
        """Check that the client may open a connection now."""
        due = self._connect_not_before
        self.check(due is not None, "the client connected although it must not")
        assert due is not None
        self.check(at >= due - TOLERANCE, f"the client connected at {at}, not at {due}")

    def allow_connection(self) -> None:
        """Handle that the program has asked for a connection."""
        self._connect_not_before = 0.0

    def forbid_connection(self) -> None:
        """Handle that the program has closed the client."""
        self._connect_not_before = None

    def allow(self, key: str) -> None:
        """Handle that the program asks for something that may have been refused before."""
        self._refused.discard(key)

    def requested(self, link: Link, frame: Frame, at: float) -> None:
        """Check a request."""
        key = self._key(frame)
        if key is not None:
            self.check(key not in self._refused, f"sent again although it was refused: {key}")
            due = self._not_before.get((link.socket, key), 0.0)
            self.check(at >= due - TOLERANCE, f"sent again at {at}, not at {due}: {key}")
        if frame["type"] == "subscribe":
            self._check_subscribe(link, frame)
        elif frame["type"] == "unsubscribe":
            for key, (options, _) in list(self._subscribed.items()):
                if options["subscription"] == frame["subscription"]:
                    del self._subscribed[key]
        elif frame["type"] == "broadcast":
            self._check_sender(link, frame["message"], "broadcast")
            call = self.program.calls[frame["message"]["call"]]
            self._sent_at.setdefault((link.socket, call.number), self._next_number())
            outcome = f"it was rejected with {call.error}"
            self.check(not call.error, f"sent although {outcome}: {frame['message']}")
        elif frame["type"] in ("state", "join") and frame.get("state"):
            self._check_sender(link, frame["state"], "state")
            is_refused = f"state {frame['state']['call']}" in self._refused
            self.check(not is_refused, f"joined with a state that was refused: {frame}")

    def _check_sender(self, link: Link, payload: dict[str, Any], kind: str) -> None:
        if payload["known"] and link.authenticated:
            reason = f"{payload} was sent by {link.user}"
            self.check(payload["user"] == link.user, f"{kind} under another user: {reason}")

    def _check_subscribe(self, link: Link, frame: Frame) -> None:
        id = frame["filters"]["id"]
        options = {key: value for key, value in frame.items() if key not in VARIABLE}
        previous = self._subscribed.get((link.socket, id))
        item = self.program.lists.get(id)
        if previous is not None:
            is_same = previous[0] == options and previous[1] in ("asked", "accepted")
            self.check(not is_same, f"subscribed twice on one connection: {frame}")
        self._subscribed[link.socket, id] = (options, "asked")
        self.check(item is None or not item.refused, f"subscribed again after a refusal: {frame}")

    def _key(self, frame: Frame) -> str | None:
        """Return a name of a request that is the same if it is sent again."""
        match frame["type"]:
            case "subscribe":
                return f"subscribe {signature_of(frame)}"
            case "broadcast":
                return f"broadcast {frame['message']['text']}"
            case "state":
                return f"state {frame['state']['call']}"
            case "join":
                # it may be sent again without a state, which may be the reason for the refusal
                rooms = [id for id, room in self.program.rooms.items() if _is(room, frame)]
                return f"join {rooms} {frame.get('state')}"
        return None

    # what the client is answered

    def accepted(self, link: Link, frame: Frame, resumed: bool, head: int) -> None:
        """Handle that the client receives the acceptance of a subscription."""
        id = frame["filters"]["id"]
        if (link.socket, id) in self._subscribed:
            options = self._subscribed[link.socket, id][0]
            self._subscribed[link.socket, id] = (options, "accepted")
        item = self.program.lists.get(id)
        if item is None:
            return
        item.accepted_request = signature_of(frame)
        if not item.is_watch:
            return
        if not resumed:
            lost = item.accepted and "since" not in frame
            self.check(not lost, f"a watch has not continued from its position: {frame}")
            item.version = head
        item.accepted = True
        item.teams, item.resyncs = self.table.rights[head], []

    def resync_arrived(self, id: str, position: int) -> None:
        """Handle that a watch receives a ``resync``, after which its events are other ones."""
        if item := self.program.lists.get(id):
            item.resyncs.append(position)

    def resynced(self, id: str, reason: str) -> None:
        """Check that a watch has reported all events before a ``resync``."""
        item = self.program.lists.get(id)
        if item is None or reason != IN_BAND or not item.is_watch:
            return
        position = item.resyncs.pop(0)
        missed = self.missed_events(item, position)
        self.check(not missed, f"{id} missed the events {missed} before its resync")
        item.version, item.teams = position, self.table.rights[position]

    def joined(self, link: Link, frame: Frame) -> None:
        """Handle that the client receives that it has joined a room."""
        for room in list(self.program.rooms.values())[::-1]:
            if _is(room, frame) and not room.left:
                room.refused = False
                return

    def user_changed(self, link: Link) -> None:
        """Handle that a connection has become another user's."""
        for key in list(self._subscribed):
            if key[0] == link.socket:
                del self._subscribed[key]

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    def failed(self, link: Link, id: str) -> None:
        """Handle that a subscription was ended by an error in the server's code."""
        self._subscribed.pop((link.socket, id), None)

    def refused(self, link: Link, request: Frame) -> None:
        """Handle that the server refuses a request."""
        if request["type"] == "subscribe":
            id = request["filters"]["id"]
            options = self._subscribed.get((link.socket, id), ({}, ""))[0]
            self._subscribed[link.socket, id] = (options, "refused")

    def refusal_arrived(self, link: Link, request: Frame, error: Frame, now: float) -> None:
        """Handle that the client receives a refusal."""
        key = self._key(request)
        if key is None:
            return
        retry = error.get("retry_after_ms")
        if request["type"] == "broadcast":
            self._refused_at[request["message"]["call"]] = self._next_number()
        if retry is not None:
            self._not_before[link.socket, key] = now + retry / 1000
        elif error["code"] in FINAL:
            self._refused.add(key)
            if request["type"] == "subscribe":
                item = self.program.lists.get(request["filters"]["id"])
                is_replaced = item is None or item.new_options is not None
                if item and not is_replaced and item.asks_for(request):
                    item.refused = True
            elif request["type"] == "join":
                if request.get("state"):
                    self._lost_states.add(request["state"]["call"])
                for room in self.program.open_rooms():
                    if room.name == request["room"]:
                        room.refused = True

    def ended(self, link: Link, code: int, retry: int | None, now: float) -> None:
        """Handle that the client loses a connection."""
        delay = (retry or 0) / 1000
        if code == 4200:
            delay = 0.0
        elif code == 4101:
            delay = max(5.0, delay)
        # after a renewal as another user, a client may find out who it is
        is_final = 4500 <= code < 5000 and code != 4504 and not link.is_renewal_refused
        self._connect_not_before = None if is_final else now + delay

    def broadcast(self, link: Link, room: RoomData, broadcast: Broadcast) -> None:
        """Check a broadcast that the server accepts."""
        number = broadcast.message["call"]
        twice = (room.name, broadcast.message["text"]) in self._positions
        self.check(not twice, f"accepted twice: {broadcast.message}")
        self.remember(room, broadcast)
        state = self.program.rooms.get(broadcast.message["room"])
        if state is None:
            return
        for later, socket in state.accepted:
            in_order = later < number or self._was_refused_meanwhile(number, later, socket)
            self.check(in_order, f"broadcasts not in order: {broadcast.message} after call {later}")
        state.accepted.append((number, link.socket))

    def _was_refused_meanwhile(self, number: int, later: int, socket: int) -> bool:
        """Return whether a broadcast was sent after another one, before a refusal of that arrived.

        It may then overtake the refused one. Some refusals never arrive.
        """
        sent_at = self._sent_at[socket, later]
        was_before = self._sent_at.get((socket, number), math.inf) < sent_at
        return was_before and sent_at < self._refused_at.get(number, math.inf)

    def remember(self, room: RoomData, broadcast: Broadcast) -> None:
        """Remember a broadcast of this client or another one."""
        self._positions[room.name, broadcast.message["text"]] = broadcast.position

    # what the client reports to its program

    def status(self, status: str, user: str | None, code: int | None) -> None:
        """Check a change of the status. The code is 1000 if the program closed the client."""
        program = self.program
        is_new_user = program.status == status == "live" and user != program.user
        legal = status in NEXT_STATUS[program.status] or is_new_user
        self.check(legal, f"the status went from {program.status} to {status}")
        program.status = status
        program.change_user(user)
        if status == "live":
            program.known = True
        elif status == "closed" and code != 1000:
            program.refuse()

    def settled(self, number: int, error: str | None) -> None:
        """Check that a call settles once, and truthfully."""
        call = self.program.calls[number]
        self.check(not call.settled, f"settled twice: {call}")
        call.settled, call.error = True, error
        if call.kind == "broadcast" and error is None:
            room = self.program.rooms[call.target].name
            was_sent = any(
                number == broadcast.message["call"] for broadcast in self.rooms[room].broadcasts
            )
            self.check(was_sent, f"a broadcast was confirmed that was not sent: {call}")
        item = self.program.lists.get(call.target)
        if item is not None and not item.is_watch and error is None:
            self._check_arrival(item, call)
        if item is not None and item.update is call:
            if error is None and item.new_options is not None:
                item.options, item.possible_options = item.new_options, None
            elif item.new_options is not None and (
                item.accepted_request == signature_of(request_of(item.new_options))
            ):
                # the server has accepted them, and failed afterwards
                item.options = item.new_options
            elif error == "closed":
                # the server may have accepted them, or will on the next connection
                item.possible_options = item.new_options
            item.update = item.new_options = None

    def result_arrived(self, id: str, request: Frame, result: Any) -> None:
        """Handle that a window or aggregates have arrived, or are confirmed to be unchanged."""
        if item := self.program.lists.get(id):
            item.is_mixed = item.is_mixed or not item.has_result
            item.has_result, item.answered = True, signature_of(request)
            item.arrived.append({key: result[key] for key in result if key != "next"})

    def snapshot_arrived(self, id: str) -> None:
        """Handle that a list that follows events has arrived."""
        if item := self.program.lists.get(id):
            item.is_mixed = item.is_mixed or item.has_result
            item.has_result, item.answered = False, None

    def frames_handled(self) -> None:
        """Check that lists show the last results that have arrived."""
        for item in self.program.lists.values():
            arrived, item.arrived = item.arrived, []
            item.is_mixed = False
            is_ended = item.stopped or item.refused or self.program.status == "closed"
            if arrived and item.has_result and not is_ended:
                late = [result for result in arrived if result != item.shown]
                self.check(not late, f"{item.id} shows {item.shown}, and not {late}")

    def _check_arrival(self, item: ListState, call: Call) -> None:
        """Check that a list is not ready before the result has arrived."""
        options = item.new_options if item.update is call else item.options
        if options is not None and query_of(options, None, frozenset()).has_result:
            if call.kind in ("update", "more"):
                is_new = item.answered == signature_of(request_of(options))
            else:
                is_new = item.answered is not None or not item.has_result
            self.check(is_new, f"settled before its result has arrived: {call}")

    def shown(self, id: str, shown: dict[str, Any], user: str | None) -> None:
        """Check a list or a count that is shown."""
        item = self.program.lists.get(id)
        if item is None or item.stopped:
            return
        if shown == item.shown:
            return  # groups come in another order, or a change was undone in the same frame
        while item.arrived and item.arrived[0] == item.shown:
            item.arrived.pop(0)
        is_next = bool(item.arrived) and item.arrived[0] == shown
        item.shown = shown
        if is_next:
            item.arrived.pop(0)
        elif "documents" in shown and (item.is_mixed or not item.has_result):
            self._check_documents(item, shown["documents"], user)
        else:
            # it may have been dropped
            is_empty = not shown.get("documents") and not shown.get("value")
            self.check(is_empty, f"{id} shows {shown}, and not the next of {item.arrived}")

    def _check_documents(self, item: ListState, documents: list[Any], user: str | None) -> None:
        """Check documents: the server had them at some time, and not before the last ones.

        New ones are at the end of a list, and those of a snapshot in the order of their ids.
        """
        if not documents:
            return
        if not item.strict:
            self._check_visible(item, documents, user)
            return
        documents = sort_by_id(documents)
        queries = item.queries(user, *self._recent_rights(item))
        for version in range(item.version, self.table.head + 1):
            rows = self.table.versions[version]
            if any(sort_by_id(query.documents(rows)) == documents for query in queries):
                item.version = version
                return
        self.fail(f"{item.id} shows {user} what the server never had: {documents}")

    def _recent_rights(self, item: ListState) -> set[frozenset[str]]:
        """Return the rights since the version that a list shows.

        If it has missed a change of the rights that was taken back, it is never shown with others.
        """
        return set(self.table.rights[item.version :])

    def _check_visible(self, item: ListState, documents: list[Any], user: str | None) -> None:
        visible = [Query(user, teams=teams) for teams in self._recent_rights(item)]
        data_of = item.queries(user, frozenset())[0].data
        for document_id, data in documents:
            had_it = any(
                (row := rows.get(document_id)) is not None
                and any(query.matches(row) for query in visible)
                and data_of(row) == data
                for rows in self.table.versions
            )
            self.check(had_it, f"{item.id} shows {user} a document that is not visible")

    def event(self, id: str, event: str, document: str, cursor: str) -> None:
        """Check that an event is the next one of its watch."""
        item = self.program.lists[id]
        position = int(cursor.split(":")[1])
        self.check(position > item.version, f"an event came twice or too late: {id} {cursor}")
        missed = self.missed_events(item, position)
        self.check(not missed, f"{id} missed the events {missed} before {cursor}")
        item.version = position

    def missed_events(self, item: ListState, before: int) -> list[int]:
        """Return the positions of the events between the last one of a watch and another."""
        query = item.queries(self.program.user, item.teams)[0]
        changes = self.table.log[item.version : before - 1]
        return [
            change.position
            for change in changes
            if query.matches(change.before if change.after is None else change.after)
        ]

    def message(self, id: str, message: dict[str, Any]) -> None:
        """Check that a message is new, in order, and in a room with history the next one."""
        room = self.program.rooms[id]
        position = self._positions[room.name, message["text"]]
        if room.last is not None:
            self.check(position > room.last, f"a message came twice or too late: {id} {message}")
            if self.rooms[room.name].keeps_history:
                self.check(position == room.last + 1, f"{id} missed a message before {message}")
        room.last = position

    # at rest

    def check_rest(self, objects: dict[str, Any], user: str | None, member: str | None) -> None:
        """Check everything while the connection is live and nothing is on its way."""
        for call in self.program.calls.values():
            self.check(call.settled, f"never settled: {call}")
        for item in self.program.lists.values():
            self._check_list(item, objects, user)
        for room in self.program.open_rooms():
            self._check_room(room, objects, user, member)
        is_reported = not self.program.mistakes or self.program.reported_mistakes
        self.check(is_reported, "no error reported that a listener has thrown")

    def _check_list(self, item: ListState, objects: dict[str, Any], user: str | None) -> None:
        if item.stopped:
            return
        if item.is_watch:
            missed = [] if item.refused else self.missed_events(item, self.table.head + 1)
            self.check(not missed, f"{item.id} missed the events {missed}")
            return
        shown = objects[item.id]
        queries = item.queries(user, self.table.rights[-1])
        expected = [expected_of(query, self.table.rows) for query in queries]
        if item.refused:
            expected = [NO_GROUPS if "groups" in shown else NO_DOCUMENTS]
        if not any(query.has_result for query in queries):
            shown = {**shown, "documents": sort_by_id(shown["documents"])}
        self.check(shown in expected, f"{item.id} {queries} shows {shown}, not {expected}")
        item.version, item.strict = self.table.head, True

    def _check_room(
        self, room: RoomState, objects: dict[str, Any], user: str | None, member: str | None
    ) -> None:
        data = self.rooms[room.name]
        members = {each["id"]: each.get("state", {}) for each in objects[room.id]}
        expected = data.members
        self.check(members == expected, f"{room.id} has the members {members}, not {expected}")
        if member is not None and (states := _possible_states(room, user)):
            state = data.members.get(member)
            is_lost = any(call.number in self._lost_states for call, _ in room.states)
            self.check(is_lost or state in states, f"{room.id} has {state}, not {states[-1]}")
        if data.keeps_history and room.last is not None:
            self.check(room.last == len(data.broadcasts), f"{room.id} missed the last messages")

    def check_terminated(self, objects: dict[str, Any], user: str | None) -> None:
        """Check that nothing is shown after the server has refused the client for good."""
        self.check(user is None, f"the refused client shows the user {user}")
        for call in self.program.calls.values():
            self.check(call.settled, f"never settled after a final refusal: {call}")
        for id, shown in objects.items():
            item = self.program.lists.get(id)
            if item is None or not item.stopped:
                is_empty = not shown or shown in (NO_DOCUMENTS, NO_GROUPS)
                self.check(is_empty, f"{id} shows {shown} after a final refusal")


NO_DOCUMENTS = {"documents": [], "more": False, "next": None}
NO_GROUPS = {"value": None, "groups": []}


def expected_of(query: Query, rows: Any) -> dict[str, Any]:
    """Return what a fresh list or count shows."""
    if query.has_result:
        return query.result(rows)
    return {**NO_DOCUMENTS, "documents": query.documents(rows)}


def sort_by_id(documents: list[Any]) -> list[Any]:
    return sorted(documents, key=lambda document: int(document[0]))


# keys of `subscribe` that may differ between two equal requests
VARIABLE = frozenset({"id", "since", "scope"})


def _is(room: RoomState, frame: Frame) -> bool:
    return room.name == frame["room"]


def _possible_states(room: RoomState, user: str | None) -> list[Any]:
    """Return the last state that was confirmed, and those after it that may have been lost."""
    possible: list[Any] = []
    for call, state in room.states:
        if call.user == user and call.error is None:
            possible = [state]
        elif call.user == user and call.error == "closed" and possible:
            possible.append(state)
    return possible

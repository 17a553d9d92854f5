"""A model of the server, which answers as the protocol says, and fails as history.py asks for."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from tests.clients.model import results
from tests.clients.model.clock import EPOCH
from tests.clients.model.data import Change, RoomData, Row, Table
from tests.clients.model.links import (
    Frame,
    Link,
    Rate,
    ServedSubscription,
    create_query,
    scope_of,
)
from tests.clients.model.network import Network

# (a second, burst)
RATES = {"messages_rate": [20, 40], "subscribe_rate": [5, 100], "broadcast_rate": [10, 20]}
LIMITS = {
    "message_bytes": 65536,
    "name_bytes": 128,
    "state_bytes": 1024,
    "subscriptions": 400,
    "rooms": 50,
    **RATES,
}
# refusals of a rate in a row after which a connection is closed
REFUSALS_IN_ROW = 10
ROOMS = {"chat": False, "hall": False, "kept": True, "archive": True}


class ModelServer(Network):
    """The server."""

    def __init__(self, seed: int, client: Any, observer: Any) -> None:
        super().__init__(client, observer)
        self.random = random.Random(seed)
        self.table = Table()
        self.rooms = {name: RoomData(name, kept) for name, kept in ROOMS.items()}
        # the user as whom connections are authenticated
        self.user: str | None = "ada"
        # whether snapshots are sent page by page, with time between them
        self.slow_snapshots = False
        # whether events are repeated when a subscription is resumed
        self.repeats = False
        # whether events come in batches
        self.batches = False
        # seconds until tokens expire
        self.lifetime: float | None = None
        # refusals of the next requests, by type: (code, retry_after_ms)
        self.refusals: dict[str, list[tuple[str, int | None]]] = {}
        # names of subscriptions, and positions of events that were sent to them
        self._sent_events: set[tuple[str, int]] = set()

    def admit(self, link: Link) -> None:
        """Count the requests of a new connection."""
        link.rates = {name: Rate(*rate, self.now) for name, rate in RATES.items()}

    def forget(self, link: Link) -> None:
        """Leave the rooms of a connection that is lost."""
        for name in list(link.rooms):
            self._leave(link, name)

    # requests

    def reply(self, link: Link, request: Frame, type: str, **fields: Any) -> None:
        self.send(link, {"type": type, "id": request.get("id"), **fields})

    def refuse(self, link: Link, request: Frame, code: str, retry: int | None = None) -> None:
        frame = {"type": "error", "code": code, "message": "No.", "id": request.get("id")}
        if retry is not None:
            frame["retry_after_ms"] = retry
        self.observer.refused(link, request)
        self.send(
            link, frame, lambda: self.observer.refusal_arrived(link, request, frame, self.now)
        )

    def handle(self, link: Link, request: Frame, at: float) -> None:
        type = request["type"]
        if type == "ping":
            self.send(link, {"type": "pong"})
        elif type == "ack":
            pass
        elif type != "auth" and not link.authenticated:
            self.observer.fail(f"{type} was sent before the client was authenticated")
        elif type == "auth" or self._is_admitted(link, request, at):
            refusals = self.refusals.get(type)
            if refusals:
                self._refuse_as_asked(link, request, *refusals.pop(0))
            else:
                getattr(self, f"_handle_{type}")(link, request)

    def _is_admitted(self, link: Link, request: Frame, at: float) -> bool:
        name = f"{request['type']}_rate"
        retry = link.rates[name if name in RATES else "messages_rate"].take(at)
        if retry is None:
            link.refusals_in_row = 0
            return True
        link.refusals_in_row += 1
        self.refuse(link, request, "rate_limited", retry)
        if link.refusals_in_row == REFUSALS_IN_ROW:
            self.observer.fail(f"the client was cut, because it sent {request['type']} too fast")
            self.close(link, 4130, 1000, True)
        return False

    def _refuse_as_asked(self, link: Link, request: Frame, code: str, retry: int | None) -> None:
        self.refuse(link, request, code, retry)
        is_rejected = request["type"] == "auth" and code == "authentication_failed"
        if is_rejected and not link.authenticated:
            self.close(link, 4500, None, True)

    def _handle_auth(self, link: Link, request: Frame) -> None:
        if link.authenticated and link.user != self.user:
            if self.random.random() < 0.5:
                link.is_renewal_refused = True
                self.refuse(link, request, "authentication_failed")
                self.close(link, 4500, None, True)
                return
            for name in list(link.rooms):
                self._leave(link, name)
            link.subscriptions.clear()
            self.observer.user_changed(link)
        link.authenticated, link.user = True, self.user
        link.connection = f"connection-{link.socket}"
        user = self.user and {"id": self.user, "name": self.user}
        expires_at = self.lifetime and _iso(self.now + self.lifetime)
        fields = {"connection": link.connection, "user": user, "project": "p", "protocol": 1}
        more = {"expires_at": expires_at, "heartbeat": 25, "limits": LIMITS, "now": _iso(self.now)}
        self.reply(link, request, "authenticated", **fields, **more)

    # subscriptions

    def _handle_subscribe(self, link: Link, request: Frame) -> None:
        name = request["subscription"]
        query = create_query(request, link.user, self.table.rights[-1])
        sub = ServedSubscription(
            name, request["filters"]["id"], query, bool(request.get("transitions"))
        )
        sub.request = request
        if code := results.refusal(sub):
            self.refuse(link, request, code)
            return
        old = link.subscriptions.pop(name, None)
        link.subscriptions[name] = sub
        if query.has_result:
            results.accept(self, link, sub, old)
            return
        scope = scope_of(query)
        table = self.table
        fields: dict[str, Any] = {"collection": "posts", "subscription": name, "durable": True}
        fields |= {"filters": request.get("filters", {}), "scope": scope}
        fields["cursor"] = table.cursor(table.head)
        since = request.get("since")
        if since is not None:
            reason = self.resync_reason(request, scope)
            if reason is None:
                self.accept(link, request, {**fields, "cursor": since, "resumed": True})
                self._replay(link, sub, int(since.split(":")[1]))
                return
            fields |= {"resumed": False, "resync": {"reason": reason}}
        self.forget_events(name)
        self.accept(link, request, fields)
        if request.get("snapshot"):
            self.send_snapshot(link, sub)

    def forget_events(self, name: str) -> None:
        """Handle that a subscription begins again: it gets no event twice because of that."""
        self._sent_events = {event for event in self._sent_events if event[0] != name}

    def accept(self, link: Link, request: Frame, fields: dict[str, Any]) -> None:
        is_resumed, head = fields.get("resumed", False), self.table.head
        frame = {"type": "subscribed", "id": request["id"], **fields}
        self.send(link, frame, lambda: self.observer.accepted(link, request, is_resumed, head))

    def resync_reason(self, request: Frame, scope: str) -> str | None:
        epoch, position = map(int, request["since"].split(":"))
        if request.get("scope", scope) != scope:
            return "scope_changed"
        if epoch != self.table.epoch:
            return "epoch_changed"
        if position > self.table.head:
            return "ahead_of_head"
        return "retention" if position < self.table.forgotten else None

    def _replay(self, link: Link, sub: ServedSubscription, position: int) -> None:
        # an event may arrive twice
        is_repeated = self.repeats and (sub.name, position) in self._sent_events
        for change in self.table.log[position - 1 if is_repeated else position :]:
            event = sub.event(change)
            if event is not None:
                self.send(link, self._event_frame(change, event, [sub]) | {"replayed": True})

    def send_snapshot(self, link: Link, sub: ServedSubscription) -> None:
        """Send the pages of a snapshot, whose rows are read when each page is sent."""
        table, query = self.table, sub.query
        cursor = table.cursor(table.head)
        keys = [row["id"] for row in query.sort(table.rows.values())]
        sub.waiting = []

        def send_page() -> None:
            nonlocal keys
            if link.subscriptions.get(sub.name) is not sub:
                return
            size = self.random.randint(1, 4) if self.slow_snapshots else len(keys)
            page, keys = keys[:size], keys[size:]
            visible = [table.rows[id] for id in page if query.matches(table.rows.get(id))]
            documents = [{"id": row["id"], "data": query.data(row)} for row in visible]
            frame = {"type": "snapshot", "subscription": sub.name, "documents": documents}
            frame |= {"cursor": cursor, "more": bool(keys)}
            arrived = None if keys else lambda: self.observer.snapshot_arrived(sub.id)
            self.send(link, frame, arrived)
            if keys:
                self.call_at(self.now + self.random.choice([0.01, 0.3, 1.5]), send_page)
                return
            self.send_waiting(link, sub)

        send_page()

    def send_waiting(self, link: Link, sub: ServedSubscription) -> None:
        """Send the events that waited for a snapshot or a move."""
        waiting, sub.waiting, sub.is_moving = sub.waiting or [], None, False
        for change, event in waiting:
            self.send(link, self._event_frame(change, event, [sub]))

    def _handle_unsubscribe(self, link: Link, request: Frame) -> None:
        name = request["subscription"]
        if link.subscriptions.pop(name, None) is None:
            self.refuse(link, request, "not_subscribed")
        else:
            self.reply(link, request, "unsubscribed", subscription=name)

    def write(self, *changes: tuple[str, Row | None]) -> None:
        """Change rows in one transaction, and send the events."""
        log = [self.table.write(id, row) for id, row in changes]
        for link in self.links.values():
            if self.batches:
                self._send_batch(link, log)
                continue
            for change in log:
                for frame in self._events_of(link, change):
                    self.send(link, frame)
            for sub in list(link.subscriptions.values()):
                if sub.query.has_result:
                    results.follow(self, link, sub)

    def _send_batch(self, link: Link, log: list[Change]) -> None:
        """Send all that belongs to some changes in one frame."""
        frames: list[Frame] = []
        arrivals: dict[str, Any] = {}
        for change in log:
            frames += self._events_of(link, change)
            for sub in link.subscriptions.values():
                if sub.query.has_result:
                    for frame, callback in results.follow(
                        self, link, sub, change.position, at_once=True
                    ):
                        frames.append(frame)
                        # only the last result of the batch is shown
                        arrivals |= {sub.name: callback} if callback else {}

        def arrive() -> None:
            for callback in arrivals.values():
                callback()

        if frames:
            batch = frames[0] if len(frames) == 1 else {"type": "events", "events": frames}
            self.send(link, batch, arrive)

    def _events_of(self, link: Link, change: Change) -> list[Frame]:
        groups: dict[Any, list[ServedSubscription]] = {}
        for sub in link.subscriptions.values():
            event = None if sub.query.has_result else sub.event(change)
            if event is None:
                continue
            if sub.waiting is not None:
                sub.waiting.append((change, event))
            else:
                groups.setdefault((event, sub.query.fields), []).append(sub)
        return [self._event_frame(change, key[0], subs) for key, subs in groups.items()]

    def _event_frame(self, change: Change, event: str, subs: list[ServedSubscription]) -> Frame:
        row = change.before if event == "deleted" else change.after
        row = row or change.before
        assert row is not None
        self._sent_events.update((sub.name, change.position) for sub in subs)
        document: dict[str, Any] = {"id": row["id"]}
        if event != "left":
            document["data"] = subs[0].query.data(row)
        frame = {"type": "event", "collection": "posts", "event": event, "document": document}
        frame |= {"subscriptions": [sub.name for sub in subs], "at": "2027-01-31T12:00:00+00:00"}
        return {**frame, "cursor": self.table.cursor(change.position)}

    # rooms

    def _member(self, link: Link) -> str:
        return link.user or link.connection

    def _handle_join(self, link: Link, request: Frame) -> None:
        room = self.rooms[request["room"]]
        member = self._member(link)
        is_listed = request.get("presence", True)
        if is_listed:
            state = request.get("state", room.members.get(member, {}))
            room.members[member] = state
        link.rooms[room.name] = is_listed
        members = room.member_list()
        fields: dict[str, Any] = {"room": room.name, "participants": len(members)}
        first = len(room.broadcasts)
        if room.keeps_history:
            fields["cursor"] = str(len(room.broadcasts))
            first = max(0, first - request.get("history", 0))
            if "since" in request:
                first = int(request["since"])
                fields["resumed"] = True
        size = self.random.choice([1, 2, len(members)])
        pages = [members[n : n + size] for n in range(0, len(members), size)] or [[]]
        more = {"more": True} if len(pages) > 1 else {}
        frame = {"type": "joined", "id": request["id"], "members": pages[0], **fields, **more}
        self.send(link, frame, lambda: self.observer.joined(link, request))
        for page in pages[1:]:
            frame = {"type": "members", "room": room.name, "members": page}
            self.send(link, {**frame, "more": page is not pages[-1]})
        if room.keeps_history:
            for broadcast in room.broadcasts[first:]:
                self.send(link, self._broadcast_frame(room, broadcast) | {"replayed": True})

    def _handle_leave(self, link: Link, request: Frame) -> None:
        name = request["room"]
        if name not in link.rooms:
            self.refuse(link, request, "not_joined")
        else:
            self._leave(link, name)
            self.reply(link, request, "left", room=name)

    def _leave(self, link: Link, name: str) -> None:
        link.rooms.pop(name)
        member = self._member(link)
        others = (other for other in self.links.values() if other is not link)
        if not any(self._member(other) == member and name in other.rooms for other in others):
            self.rooms[name].members.pop(member, None)

    def _handle_state(self, link: Link, request: Frame) -> None:
        room = self.rooms[request["room"]]
        if room.name not in link.rooms:
            self.refuse(link, request, "not_joined")
            return
        self.rooms[room.name].members[self._member(link)] = request["state"]
        self.reply(link, request, "state", room=room.name)

    def _handle_broadcast(self, link: Link, request: Frame) -> None:
        room = self.rooms[request["room"]]
        if room.name not in link.rooms:
            self.refuse(link, request, "not_joined")
            return
        key = request.get("idempotency_key")
        broadcast = room.publish(request["message"], link.user, key, self.now)
        if broadcast is None:
            self.reply(link, request, "sent", room=room.name, duplicate=True)
            return
        self.observer.broadcast(link, room, broadcast)
        reply_first = self.random.random() < 0.5
        if reply_first:
            self.reply(link, request, "sent", room=room.name)
        self.fan_out(room, broadcast)
        if not reply_first:
            self.reply(link, request, "sent", room=room.name)

    def fan_out(self, room: RoomData, broadcast: Any) -> None:
        """Send a broadcast to all connections in a room."""
        for link in self.links.values():
            if room.name in link.rooms:
                self.send(link, self._broadcast_frame(room, broadcast))

    def _broadcast_frame(self, room: RoomData, broadcast: Any) -> Frame:
        sender = broadcast.sender and {
            "id": broadcast.sender,
            "name": broadcast.sender,
            "verified": True,
        }
        frame = {"type": "event", "event": "broadcast", "room": room.name, "sender": sender}
        frame |= {"message": broadcast.message, "at": _iso(broadcast.at)}
        return {**frame, "cursor": str(broadcast.position)} if room.keeps_history else frame

    def show_member(self, room: RoomData, member: str, state: Mapping[str, Any] | None) -> None:
        """Let another member join, change its state, or leave (with None)."""
        event = "updated" if member in room.members else "joined"
        shown: dict[str, Any] = {"id": member, "name": member}
        if state is None:
            if member not in room.members:
                return
            event = "left"
            room.members.pop(member)
        else:
            room.members[member] = shown["state"] = state
        frame = {"type": "presence", "room": room.name, "event": event, "member": shown}
        for link in self.links.values():
            if room.name in link.rooms:
                self.send(link, {**frame, "participants": len(room.members)})


def _iso(at: float) -> str:
    return datetime.fromtimestamp(EPOCH + at, UTC).isoformat()

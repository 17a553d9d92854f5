"""Runs a session without I/O, with prepared results of its effects."""

import json
from unittest.mock import Mock

from django_cocobase_realtime.declarations.authorization import Decision, Grant
from django_cocobase_realtime.declarations.room import Room, RoomGrant
from django_cocobase_realtime.events import Member
from django_cocobase_realtime.filters import FieldSpec, Filter, Kind
from django_cocobase_realtime.identity import Identity
from django_cocobase_realtime.log.reader import StreamRange
from django_cocobase_realtime.options import Limits
from django_cocobase_realtime.protocol import Session, effects
from django_cocobase_realtime.rooms.local_room import JoinResult, RoomMembership
from django_cocobase_realtime.rooms.publisher import PublishResult
from django_cocobase_realtime.transport.connection import Connection
from django_cocobase_realtime.transport.writer import Writer

ADA = Identity("jwt:default:1", user_id=1, name="ada")
SCHEMA = {"status": FieldSpec("status", Kind.TEXT)}
GRANT = Grant(
    Decision(Filter.everything()),
    ("title", "status"),
    frozenset({"status"}),
    SCHEMA,
    ("id",),
    "posts",
    order_fields=frozenset({"status"}),
)


class SessionRunner:
    """Run a session with prepared results of effects, and collect the effects."""

    def __init__(self, limits=None, **results):
        self.connection = Connection("c1", Mock(spec=Writer), lambda code: None)
        self.session = Session(self.connection, limits or Limits(), heartbeat=25, now=0.0)
        self.results = {
            effects.Authenticate: ADA,
            effects.AdmitConnection: effects.Admission({}, {}),
            effects.AuthorizeCollection: GRANT,
            **results,
        }
        self.results.setdefault(effects.OpenTopic, StreamRange("e1", 10, 5))
        self.results.setdefault(effects.ReserveFilterCost, True)
        self.results.setdefault(effects.AuthorizeRoom, RoomGrant(Room()))
        self.results.setdefault(
            effects.JoinRoom, JoinResult(1, [Member("1", "ada")], "r", None, None)
        )
        self.results.setdefault(effects.PublishToRoom, PublishResult.SENT)

    def run(self, steps):
        yielded, result = [], None
        try:
            while True:
                effect = steps.send(result)
                yielded.append(effect)
                result = self.results.get(type(effect))
                match effect:  # what the consumer does to the connection
                    case effects.AttachSubscription(subscription):
                        self.session.subscriptions[subscription.name] = subscription
                    case effects.DetachSubscription(subscription):
                        del self.session.subscriptions[subscription.name]
                    case effects.JoinRoom(request, grant):
                        membership = RoomMembership(
                            self.connection, ("default", request.room), grant
                        )
                        self.session.rooms[request.room] = membership
                    case effects.LeaveRoom(room):
                        self.session.rooms.pop(room, None)
        except StopIteration:
            return yielded

    def receive(self, frame, now=0.0):
        text = frame if isinstance(frame, str | None) else json.dumps(frame)
        return self.run(self.session.receive(text, now))

    def frames(self, frame, now=0.0):
        return [e.frame for e in self.receive(frame, now) if isinstance(e, effects.Send)]

    def reply(self, frame, now=0.0):
        (reply,) = self.frames(frame, now)
        return reply


def close_codes(yielded):
    return [e.code for e in yielded if isinstance(e, effects.Close)]


def subscribe(runner, **options):
    """Subscribe to posts. Return the reply and the effect that attaches the subscription."""
    yielded = runner.receive({"type": "subscribe", "collection": "posts", **options})
    return yielded[-2].frame, yielded[-1]

"""A live set against the database's own answer: random filters, identities and changes.

Over real sockets of a real server in another process: what a client holds by snapshot and
transitions is what the ORM finds, and the literal events of each row are those that happened to
it, in order.
"""

import json
import os
from contextlib import ExitStack

import pytest
from django.db import transaction
from django.db.models import Q
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from websockets.sync.client import connect

from tests.app.models import Item
from tests.e2e.test_in_process import token

EXAMPLES = int(os.environ.get("EXAMPLES", "100")) // 8
NAMES = ["Ada", "adam", "Bob", "bö"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.server]


# (what a client sends, the same asked of the ORM in its own words)
CONDITIONS = [
    *(({"size": n}, Q(size=n)) for n in (0, 3, 9)),
    ({"size_ne": 3}, ~Q(size=3)),
    *(({f"size_{op}": 4}, Q(**{f"size__{op}": 4})) for op in ("gt", "gte", "lt", "lte")),
    ({"size": {"gte": 3, "lt": 9}}, Q(size__gte=3, size__lt=9)),
    ({"size_between": "3,5"}, Q(size__range=(3, 5))),
    ({"size_in": [0, 9]}, Q(size__in=[0, 9])),
    ({"size_notin": "0,9"}, ~Q(size__in=[0, 9])),
    ({"name_contains": "ada"}, Q(name__icontains="ada")),
    ({"name_startswith": "B"}, Q(name__istartswith="b")),
    ({"[or]size": 0, "[or]name_endswith": "OB"}, Q(size=0) | Q(name__iendswith="ob")),
    ({"$not": {"size_gt": 3, "name_startswith": "a"}}, ~Q(size__gt=3, name__istartswith="a")),
    ({"$or": [{"size": 5}, {"$not": {"size_lt": 9}}]}, Q(size=5) | ~Q(size__lt=9)),
    ({}, Q()),
]
conditions = st.sampled_from(CONDITIONS)
both = st.tuples(conditions, conditions).map(
    lambda c: ({"$and": [c[0][0], c[1][0]]}, c[0][1] & c[1][1])
)
questions = st.one_of(conditions, both)

sizes = st.sampled_from([0, 3, 4, 5, 9])
names = st.sampled_from(NAMES)
places = st.integers(0, 5)
changes = st.recursive(
    st.one_of(
        st.tuples(st.just("create"), names, sizes),
        st.tuples(st.just("save"), places, names, sizes),
        st.tuples(st.just("update"), sizes, sizes),
        st.tuples(st.just("bulk"), st.lists(sizes, min_size=1, max_size=3)),
        st.tuples(st.just("delete"), places),
        st.tuples(st.just("clear"), sizes),
    ),
    lambda inner: st.tuples(st.sampled_from(["commit", "undo"]), st.lists(inner, max_size=3)),
    max_leaves=6,
)


@pytest.fixture
def stack():
    with ExitStack() as found:
        yield found


class Undo(Exception):
    pass


class World:
    """Carries out changes, and keeps what each did to each row: before and after."""

    def __init__(self):
        self.count = Item.objects.count()
        self.history = []

    def name(self, name):
        self.count += 1
        return f"{name} {self.count}-{os.urandom(3).hex()}"

    def rows(self):
        return {row.pk: (row.name, row.size) for row in Item.objects.all()}

    def apply(self, change):
        kind, *rest = change
        if kind in ("commit", "undo"):
            kept = list(self.history)
            try:
                with transaction.atomic():
                    for each in rest[0]:
                        self.apply(each)
                    if kind == "undo":
                        raise Undo
            except Undo:
                self.history = kept
            return
        before = self.rows()
        touched = self._write(kind, rest)
        after = self.rows()
        for pk in sorted({*before, *after}):
            if before.get(pk) != after.get(pk) or pk in touched:
                self.history.append((pk, before.get(pk), after.get(pk)))

    def _write(self, kind, rest):
        items = list(Item.objects.order_by("pk"))
        match kind, rest:
            case "create", (name, size):
                Item.objects.create(name=self.name(name), size=size)
            case "save", (place, name, size) if place < len(items):
                item = items[place]
                item.name, item.size = self.name(name), size
                item.save()
            case "update", (old, new):
                touched = [item.pk for item in items if item.size == old]
                Item.objects.filter(size=old).order_by("pk").update(size=new)
                return touched
            case "bulk", (many,):
                Item.objects.bulk_create([Item(name=self.name("x"), size=n) for n in many])
            case "delete", (place,) if place < len(items):
                items[place].delete()
            case "clear", (size,):
                Item.objects.filter(size=size).delete()
        return ()


class Watcher:
    """A connection of one identity: a live set by transitions, and literal events."""

    def __init__(self, stack, url, token, rows):
        self.socket = stack.enter_context(connect(url, proxy=None))
        self.rows = rows  # what the identity may see, for the ORM
        self.send(type="auth", token=token)
        assert self.receive()["type"] == "authenticated"

    def send(self, **frame):
        self.socket.send(json.dumps(frame))

    def receive(self):
        return json.loads(self.socket.recv(timeout=20))

    def ask(self, filters, mark):
        self.send(type="unsubscribe", collection="items")
        while self.receive()["type"] not in ("unsubscribed", "error"):
            pass
        self.held, self.events = {}, {}
        more = {"filters": filters, "collection": "items", "type": "subscribe"}
        self.send(**more, subscription="set", transitions=True, snapshot=True)
        self.send(**more, subscription="literal")
        self.send(**{**more, "filters": {"name": mark}}, subscription="mark")
        waits = {"snapshot", "mark"}  # a snapshot may be newer than its cursor: nothing meanwhile

        def done(frame):
            if frame["type"] == "snapshot" and not frame["more"]:
                waits.discard("snapshot")
            if frame.get("subscription") == "mark":
                waits.discard("mark")
            return not waits

        self.until(done)

    def until(self, done):
        while True:
            frame = self.receive()
            assert frame["type"] != "error", frame
            if frame["type"] == "snapshot":
                for document in frame["documents"]:
                    self.held[document["id"]] = document["data"]
            if frame["type"] == "event":
                self.take(frame)
            if done(frame):
                return

    def take(self, frame):
        id, event = frame["document"]["id"], frame["event"]
        if "set" in frame["subscriptions"]:
            assert (event == "left") is ("data" not in frame["document"])
            if event in ("left", "deleted"):
                assert self.held.pop(id, None) is not None
            else:
                assert (id in self.held) is (event == "updated")
                self.held[id] = frame["document"]["data"]
        if "literal" in frame["subscriptions"]:
            self.events.setdefault(id, []).append(event)


def test_the_set_is_what_the_database_finds(serve, redis, user, api_key, stack):
    permission = "tests.support.permissions.SmallForApps"
    options = {
        "COLLECTIONS": {"items": {"model": "app.Item", "permission": permission}},
        "LIMITS": {"subscribe_rate": [1000, 1000], "filter_depth": 4},
    }
    server = serve("uvicorn", layers=redis.layer("pubsub"), settings=options)
    watchers = [
        Watcher(stack, server.socket_url, api_key, Q(size__lt=5)),
        Watcher(stack, server.socket_url, token(user), Q()),
    ]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(questions, st.lists(changes, max_size=6))
    def compare(question, drawn):
        filters, asked = question
        mark = f"mark {os.urandom(4).hex()}"
        for watcher in watchers:
            watcher.ask(filters, mark)
        world = World()
        for change in drawn:
            world.apply(change)
        last = Item.objects.create(name=mark, size=-1)
        for watcher in watchers:
            watcher.until(lambda frame: "mark" in frame.get("subscriptions", ()))
            found = Item.objects.filter(asked & watcher.rows).exclude(pk=last.pk)
            assert {id: data for id, data in watcher.held.items() if id != str(last.pk)} == {
                str(item.pk): {"name": item.name, "size": item.size} for item in found
            }
            watcher.events.pop(str(last.pk), None)
            assert watcher.events == literal(world, asked & watcher.rows)
        last.delete()

    compare()


def literal(world, asked):
    """The events of a subscription without transitions, told from the history by the ORM.

    By document: rows that one statement changes have no order among themselves.
    """
    matching = {}
    for state in {state for _, *states in world.history for state in states if state}:
        with transaction.atomic():
            name, size = state
            Item.objects.filter(name=name).update(name=f"{name}!")
            trial = Item.objects.create(name=name, size=size)
            matching[state] = Item.objects.filter(asked, pk=trial.pk).exists()
            transaction.set_rollback(True)
    events = {}
    for pk, before, after in world.history:
        event = "created" if before is None else "deleted" if after is None else "updated"
        if matching[before if after is None else after]:
            events.setdefault(str(pk), []).append(event)
    return events

"""Compare subscriptions with the database, for random filters, identities and changes.

The server is a real one in another process. The documents that a client has from its snapshot and
transitions must be those that the ORM finds. The events of a subscription without transitions must
be the changes that happened to each row, in order.
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
from tests.support.tokens import create_token

EXAMPLES = int(os.environ.get("EXAMPLES", "100")) // 8
NAMES = ["Ada", "adam", "Bob", "bö"]

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.server]


# (a filter that a client sends, the same condition for the ORM)
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
queries = st.one_of(conditions, both)

sizes = st.sampled_from([0, 3, 4, 5, 9])
names = st.sampled_from(NAMES)
positions = st.integers(0, 5)
changes = st.recursive(
    st.one_of(
        st.tuples(st.just("create"), names, sizes),
        st.tuples(st.just("save"), positions, names, sizes),
        st.tuples(st.just("update"), sizes, sizes),
        st.tuples(st.just("bulk"), st.lists(sizes, min_size=1, max_size=3)),
        st.tuples(st.just("delete"), positions),
        st.tuples(st.just("clear"), sizes),
    ),
    lambda inner: st.tuples(st.sampled_from(["commit", "undo"]), st.lists(inner, max_size=3)),
    max_leaves=6,
)


@pytest.fixture
def stack():
    with ExitStack() as stack:
        yield stack


class Undo(Exception):
    pass


class ChangeLog:
    """Execute changes and record each changed row before and after."""

    def __init__(self):
        self.count = Item.objects.count()
        self.history = []

    def unique_name(self, name):
        self.count += 1
        return f"{name} {self.count}-{os.urandom(3).hex()}"

    def rows(self):
        return {row.pk: (row.name, row.size) for row in Item.objects.all()}

    def apply(self, change):
        kind, *rest = change
        if kind in ("commit", "undo"):
            history = list(self.history)
            try:
                with transaction.atomic():
                    for inner in rest[0]:
                        self.apply(inner)
                    if kind == "undo":
                        raise Undo
            except Undo:
                self.history = history
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
                Item.objects.create(name=self.unique_name(name), size=size)
            case "save", (position, name, size) if position < len(items):
                item = items[position]
                item.name, item.size = self.unique_name(name), size
                item.save()
            case "update", (old, new):
                touched = [item.pk for item in items if item.size == old]
                Item.objects.filter(size=old).order_by("pk").update(size=new)
                return touched
            case "bulk", (many,):
                Item.objects.bulk_create([Item(name=self.unique_name("x"), size=n) for n in many])
            case "delete", (position,) if position < len(items):
                items[position].delete()
            case "clear", (size,):
                Item.objects.filter(size=size).delete()
        return ()


class Watcher:
    """One identity's connection, with one subscription with transitions and one without."""

    def __init__(self, stack, url, token, rows):
        self.socket = stack.enter_context(connect(url, proxy=None))
        self.rows = rows  # a condition for the rows that the identity may see
        self.send(type="auth", token=token)
        assert self.receive()["type"] == "authenticated"

    def send(self, **frame):
        self.socket.send(json.dumps(frame))

    def receive(self):
        return json.loads(self.socket.recv(timeout=20))

    def subscribe(self, filters, mark):
        self.send(type="unsubscribe", collection="items")
        while self.receive()["type"] not in ("unsubscribed", "error"):
            pass
        self.documents, self.events = {}, {}
        query = {"filters": filters, "collection": "items", "type": "subscribe"}
        self.send(**query, subscription="set", transitions=True, snapshot=True)
        self.send(**query, subscription="plain")
        self.send(**{**query, "filters": {"name": mark}}, subscription="mark")
        missing = {"snapshot", "mark"}  # no change may happen until both have arrived

        def done(frame):
            if frame["type"] == "snapshot" and not frame["more"]:
                missing.discard("snapshot")
            if frame.get("subscription") == "mark":
                missing.discard("mark")
            return not missing

        self.read_until(done)

    def read_until(self, done):
        while True:
            frame = self.receive()
            assert frame["type"] != "error", frame
            if frame["type"] == "snapshot":
                for document in frame["documents"]:
                    self.documents[document["id"]] = document["data"]
            if frame["type"] == "event":
                self.apply(frame)
            if done(frame):
                return

    def apply(self, frame):
        id, event = frame["document"]["id"], frame["event"]
        if "set" in frame["subscriptions"]:
            assert (event == "left") is ("data" not in frame["document"])
            if event in ("left", "deleted"):
                assert self.documents.pop(id, None) is not None
            else:
                assert (id in self.documents) is (event == "updated")
                self.documents[id] = frame["document"]["data"]
        if "plain" in frame["subscriptions"]:
            self.events.setdefault(id, []).append(event)


def test_subscription_matches_database_for_random_changes(serve, redis, user, api_key, stack):
    permission = "tests.support.permissions.SmallForApps"
    options = {
        "COLLECTIONS": {"items": {"model": "app.Item", "permission": permission}},
        "LIMITS": {"subscribe_rate": [1000, 1000], "filter_depth": 4},
    }
    server = serve("uvicorn", layers=redis.layer("pubsub"), settings=options)
    watchers = [
        Watcher(stack, server.socket_url, api_key, Q(size__lt=5)),
        Watcher(stack, server.socket_url, create_token(user), Q()),
    ]

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(queries, st.lists(changes, max_size=6))
    def compare(query, drawn_changes):
        filters, condition = query
        mark = f"mark {os.urandom(4).hex()}"
        for watcher in watchers:
            watcher.subscribe(filters, mark)
        log = ChangeLog()
        for change in drawn_changes:
            log.apply(change)
        last = Item.objects.create(name=mark, size=-1)
        for watcher in watchers:
            watcher.read_until(lambda frame: "mark" in frame.get("subscriptions", ()))
            items = Item.objects.filter(condition & watcher.rows).exclude(pk=last.pk)
            assert {id: data for id, data in watcher.documents.items() if id != str(last.pk)} == {
                str(item.pk): {"name": item.name, "size": item.size} for item in items
            }
            watcher.events.pop(str(last.pk), None)
            assert watcher.events == expected_events(log, condition & watcher.rows)
        last.delete()

    compare()


def expected_events(log, condition):
    """Return the events of a subscription without transitions, computed by the ORM.

    They are grouped by document, because rows changed by one statement have no order.
    """
    matching = {}
    for state in {state for _, *states in log.history for state in states if state}:
        with transaction.atomic():
            name, size = state
            Item.objects.filter(name=name).update(name=f"{name}!")
            trial = Item.objects.create(name=name, size=size)
            matching[state] = Item.objects.filter(condition, pk=trial.pk).exists()
            transaction.set_rollback(True)
    events = {}
    for pk, before, after in log.history:
        event = "created" if before is None else "deleted" if after is None else "updated"
        if matching[before if after is None else after]:
            events.setdefault(str(pk), []).append(event)
    return events

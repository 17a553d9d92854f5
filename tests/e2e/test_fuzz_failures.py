"""Random sequences of valid requests to a project whose code fails at random.

The connection stays open, each request with an id is answered once, no data is sent for
subscriptions and rooms that were refused or have ended, and each failure is logged once.
"""

import json
import os
import re
import uuid

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from django_cocobase_realtime.wire.codes import CloseCode
from tests.app.models import Post
from tests.e2e.test_fuzz import fuzz

EXAMPLES = int(os.environ.get("EXAMPLES", "100")) // 5
FAILING = "tests.support.failing"
FAST = (100_000, 100_000)
POSTS = {"model": "app.Post", "fields": ["title", "status", "views"]}
OPTIONS = {
    "AUTHENTICATORS": [
        f"{FAILING}.FlakyAuthenticator",
        "django_cocobase_realtime.auth.api_key.ApiKeyAuthenticator",
    ],
    "COLLECTIONS": {
        "posts": POSTS,
        "random": {**POSTS, "permission": f"{FAILING}.FailsAtRandom"},
        "rows": {**POSTS, "permission": f"{FAILING}.RowFailsAtRandom"},
        "serialized": {"model": "app.Post", "serializer": f"{FAILING}.serialize"},
        "denied": {**POSTS, "permission": f"{FAILING}.Denied"},
        "passing": {"model": "app.Message", "durable": False},
    },
    "ROOMS": {
        "random-*": {"permission": f"{FAILING}.RoomFailsAtRandom", "history": 3},
        "closed-*": {"permission": "tests.support.blocking_permissions.JoinForbidden"},
        "*": {},
    },
    "LIMITS": {
        "messages_rate": FAST,
        "subscribe_rate": FAST,
        "broadcast_rate": FAST,
        "failed_auths_per_minute": 100_000,
    },
}
COLLECTIONS = [name for name in OPTIONS["COLLECTIONS"] if name != "passing"]
ALLOWED_CODES = {
    code
    for code in CloseCode
    if code not in (CloseCode.INTERNAL_ERROR, CloseCode.UNAVAILABLE, CloseCode.PERMISSIONS_CHANGED)
}

collections = st.sampled_from(COLLECTIONS)
rooms = st.sampled_from(["random-1", "random-2", "closed-1", "open"])
names = st.sampled_from(["a", "b", "c"])
requests = st.one_of(
    st.builds(
        lambda collection, name, snapshot, transitions, filters: {
            "type": "subscribe",
            "collection": collection,
            "subscription": name,
            "snapshot": snapshot,
            "transitions": transitions,
            "filters": filters,
        },
        collections,
        names,
        st.sampled_from([False, True, {"limit": 3}]),
        st.booleans(),
        st.sampled_from([{}, {"title_contains": "a"}]),
    ),
    st.builds(lambda name: {"type": "unsubscribe", "subscription": name}, names),
    st.builds(lambda room, n: {"type": "join", "room": room, "history": n}, rooms, st.just(3)),
    st.builds(lambda room: {"type": "leave", "room": room}, rooms),
    st.builds(lambda room: {"type": "broadcast", "room": room, "message": "m"}, rooms),
    st.builds(lambda room: {"type": "state", "room": room, "state": {"a": 1}}, rooms),
    st.just({"type": "auth", "token": "flaky"}),
    st.just({"type": "ping"}),
    st.just({"type": "write"}),  # not sent: a row is saved
)
conversations = st.lists(requests, min_size=5, max_size=25)
SUBSCRIBE_ALL = [
    {"type": "subscribe", "collection": name, "subscription": f"{name}-{n}", "snapshot": n == 0}
    for n in range(3)
    for name in COLLECTIONS
]
JOIN_ALL = [{"type": "join", "room": f"random-{n}", "history": 3} for n in range(8)]


class Conversation:
    """Checks the frames of one connection against its requests."""

    def __init__(self, socket):
        self.socket = socket
        self.sent = {}
        self.answered = set()
        self.subscriptions = set()
        self.rooms = set()
        self.errors = 0

    def send(self, request):
        number = len(self.sent)
        self.sent[number] = request
        self.socket.send(json.dumps({**request, "id": number}))

    def read_until_answered(self):
        while len(self.answered) < len(self.sent):
            self.check(json.loads(self.socket.recv(timeout=20)))

    def read_rest(self):
        while True:
            try:
                self.check(json.loads(self.socket.recv(timeout=0.3)))
            except TimeoutError:
                return

    def check(self, frame):
        request = None
        if "id" in frame and frame["type"] not in ("event", "snapshot"):
            assert frame["id"] in self.sent, frame
            assert frame["id"] not in self.answered, ("answered twice", frame)
            self.answered.add(frame["id"])
            request = self.sent[frame["id"]]
        match frame["type"]:
            case "subscribed":
                assert request is not None
                assert frame["collection"] != "denied", frame
                self.subscriptions.add(frame["subscription"])
            case "unsubscribed":
                self.subscriptions.discard(frame.get("subscription"))
            case "joined":
                assert not frame["room"].startswith("closed"), frame
                self.rooms.add(frame["room"])
            case "left":
                self.rooms.discard(frame["room"])
            case "error":
                self.check_error(frame, request)
            case "event" if "room" in frame:
                assert frame["room"] in self.rooms, frame
            case "presence":
                assert frame["room"] in self.rooms, frame
            case "event":
                assert frame["collection"] != "denied", frame
                assert set(frame["subscriptions"]) <= self.subscriptions, frame
                self.check_document(frame["collection"], frame)
            case "snapshot" | "cursor":
                assert frame["subscription"] in self.subscriptions, frame
                for document in frame.get("documents", ()):
                    assert document.get("error") is True or document["data"], document

    def check_document(self, collection, frame):
        document = frame["document"]
        if frame["event"] != "left":
            assert document.get("error") is True or document["data"]["title"], frame
        if document.get("error") is True:
            assert collection == "serialized", frame
            assert "data" not in document, frame

    def check_error(self, frame, request):
        assert "failure" not in json.dumps(frame), "The project's message is sent to the client."
        assert "ProjectError" not in json.dumps(frame)
        if frame["code"] != "internal_error":
            return
        self.errors += 1
        if request is None:  # a subscription or a room that ended by itself
            assert frame.get("subscription") or frame.get("room"), frame
            self.subscriptions.discard(frame.get("subscription"))
            self.rooms.discard(frame.get("room"))


def authenticate(conversation):
    """Authenticate; a failure of the authenticator leaves the connection open."""
    for _ in range(60):
        conversation.send({"type": "auth", "token": "flaky"})
        while True:
            frame = json.loads(conversation.socket.recv(timeout=10))
            conversation.check(frame)
            if "id" in frame:
                break
        if frame["type"] == "authenticated":
            return
        assert frame["code"] == "internal_error", frame
    raise AssertionError("Authentication never succeeded.")


@pytest.mark.django_db(transaction=True)
@pytest.mark.server
@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
def test_failing_project_code_fails_alone(serve, kind):
    server = serve(kind, settings=OPTIONS)
    for n in range(5):
        Post.objects.create(title=f"a {n}")
    errors = 0

    @fuzz(EXAMPLES)
    @given(conversations)
    @example([*SUBSCRIBE_ALL, *[{"type": "write"}] * 5])
    @example([*JOIN_ALL, *({"type": "broadcast", "room": f"random-{n}"} for n in range(8))])
    def run(conversation):
        nonlocal errors
        with connect(server.socket_url, proxy=None, max_size=None) as socket:
            talk = Conversation(socket)
            try:
                authenticate(talk)
                for request in conversation:
                    if request["type"] == "write":
                        server.post("/posts", [{"title": f"a {uuid.uuid4()}"}])
                    else:
                        talk.send(request)
                talk.read_until_answered()
                server.post("/posts", [{"title": "a last"}])
                talk.send({"type": "ping"})
                talk.read_until_answered()
                talk.read_rest()
            except ConnectionClosed as closed:
                code = None if closed.rcvd is None else closed.rcvd.code
                assert code in ALLOWED_CODES, (code, talk.sent)
            errors += talk.errors

    run()
    assert errors > 0
    check_log(server.log.read_text())


def check_log(log):
    """Check that each failure was logged once, and nothing else failed."""
    failures = re.findall(r"^tests\.support\.failing\.ProjectError: (failure-\d+)$", log, re.M)
    assert failures
    assert len(failures) == len(set(failures)), "A failure was logged twice."
    others = log.count("Traceback (most recent call last)") - len(failures)
    if others:
        blocks = log.split("Traceback (most recent call last)")[1:]
        unexpected = [block for block in blocks if "ProjectError" not in block]
        raise AssertionError((unexpected or blocks)[0][:3000])

"""Random and malformed frames to real servers: each is answered, and no answer has a secret.

The data of another project, and rows and fields that the client may not see, contain `SECRET`. The
word must not be in any answer, over either protocol dialect or HTTP.
"""

import json
import os
import uuid
from contextlib import ExitStack
from http.client import HTTPConnection

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from django_cocobase_realtime.models import ApiKey
from django_cocobase_realtime.wire.codes import ErrorCode
from tests.app.models import Post
from tests.support import fuzz_inputs
from tests.support.tokens import create_token

EXAMPLES = int(os.environ.get("EXAMPLES", "100"))
SECRET = "xyzzy"
SEEN = ("short", "checked", "posts")
BROKEN = {1000, 1006, 1011, 4100, 4101, None}
FAST = (100_000, 100_000)
OPTIONS = {
    "COLLECTIONS": {
        "posts": {
            "model": "app.Post",
            "fields": ["title", "status", "meta", "owner", "views"],
            "project_field": "project",
        },
        "mine": {"model": "app.Post", "permission": "tests.support.permissions.OwnPosts"},
        "checked": {"model": "app.Post", "permission": "tests.support.permissions.PublishedFew"},
        "short": {
            "model": "app.Post",
            "serializer": "tests.support.blocking_permissions.serialize_title",
            "project_field": "project",
            "soft_delete": {"status": "gone"},
        },
        "staff": {"model": "app.Post", "permission": "tests.support.permissions.IsAdminUser"},
        "everything": "app.Everything",
    },
    "ROOMS": {
        "closed-*": {"permission": "tests.support.blocking_permissions.JoinForbidden"},
        "blind-*": {"permission": "tests.support.blocking_permissions.MembersHidden"},
        "kept-*": {"history": 5},
        "durable-*": {"durable": True},
        "*": {},
    },
    "LIMITS": {
        "bad_requests_per_minute": 100_000,
        "messages_rate": FAST,
        "subscribe_rate": FAST,
        "broadcast_rate": FAST,
        "failed_auths_per_minute": 100_000,
        "connections_per_user": 1000,
    },
}

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.server]


class World:
    """A server with secret data of other users, and a regular client that must not be affected."""

    def __init__(self, stack, server, ada, eve):
        self.stack, self.server, self.eve = stack, server, eve
        create_key = ApiKey.objects.create_key
        self.key, self.publish_key = (
            create_key("own")[1],
            create_key("own server", can_publish=True)[1],
        )
        self.other_key = create_key("other", project="other", can_publish=True)[1]
        self.token = create_token(ada)
        self.hidden = {"title": SECRET, "body": SECRET, "project": "other", "owner": eve}
        self.hidden |= {"status": "draft", "views": 50}
        self.shown = {"title": "shown", "body": "", "project": "default", "owner": ada}
        self.shown |= {"status": "published", "views": 1}
        self.row = Post.objects.create(**self.hidden)
        Post.objects.create(title="ada's", owner=ada, meta={"a": 1})
        self.regular_client = self.open("", {"type": "auth", "token": self.key})
        assert json.loads(self.regular_client.recv())["type"] == "authenticated"
        for name in SEEN:
            self.regular_client.send(json.dumps({"type": "subscribe", "collection": name}))
            cursor = json.loads(self.regular_client.recv())["cursor"]
        other = self.open("", {"type": "auth", "token": self.other_key})
        other.recv()
        self.placeholders = {
            "OTHER-KEY": self.other_key,
            "OTHER-USER": create_token(eve, project="other"),
        }
        self.placeholders["CURSOR-posts"] = cursor
        self.other = other
        for room in ("kept-1", "durable-1", f"{SECRET}-room"):
            self.open(
                f"/rooms/{room}", {**self.sdk_auth(self.other_key), "action": "create"}
            ).recv()
            other.send(json.dumps({"type": "join", "room": room}))
            while (joined := json.loads(other.recv()))["type"] != "joined":
                pass
            self.placeholders[f"CURSOR-{room}"] = joined.get("cursor")
        self.open("/rooms/blind-1", {**self.sdk_auth(self.key), "action": "create"}).recv()
        self.make_changes()

    def sdk_auth(self, key):
        return {"api_key": key, "user_id": SECRET, "user_name": SECRET}

    def open(self, path, first):
        url = self.server.socket_url + path
        socket = self.stack.enter_context(connect(url, proxy=None, max_size=None, max_queue=None))
        socket.send(json.dumps(first))
        return socket

    def fill_placeholders(self, text, others=True):
        """Replace placeholders by cursors and by credentials of other users."""
        for placeholder, value in self.placeholders.items():
            known = others or not placeholder.startswith("OTHER")
            text = text.replace(placeholder, (value or "") if known else "unknown")
        return text

    def make_changes(self):
        """Change data of other users; wait until the regular client has received it."""
        title = uuid.uuid4().hex
        unseen = {**self.hidden, "status": "published"}  # hidden by the row check alone
        gone = {**self.hidden, "status": "gone"}
        for state in (unseen, self.shown, gone, self.shown, self.hidden):
            for name, value in state.items():
                setattr(self.row, name, value)
            self.row.save()
        Post.objects.create(**self.hidden).delete()
        secret = {"title": SECRET, "body": SECRET, "meta": {"a": SECRET}, "views": 50}
        self.server.post(
            "/posts",
            [
                {**secret, "project": "other"},
                {**secret, "project": "other", "owner_id": self.eve.pk, "status": "published"},
                {"title": "public", "body": SECRET},
                {"title": title, "status": "published"},
            ],
        )
        messages = [{"room": r, "message": SECRET} for r in ("kept-1", "durable-1", "open", "*")]
        assert self.http("POST", "publish", self.other_key, {"messages": messages})[0] == 202
        closed = {"room": "closed-1", "message": SECRET}
        assert self.http("POST", "publish", self.publish_key, closed)[0] == 202
        waiting = set(SEEN)
        while waiting:
            frame = json.loads(self.regular_client.recv(timeout=10))
            if title in json.dumps(frame):
                waiting.remove(frame["collection"])

    def http(self, method, path, key, body, **headers):
        connection = HTTPConnection("127.0.0.1", self.server.port, timeout=10)
        try:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers = {"X-API-Key": key, "Content-Type": "application/json", **headers}
            connection.request(method, f"/realtime/{path}", data, headers)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()


@pytest.fixture(params=["daphne", "uvicorn"])
def world(serve, django_user_model, request):
    ada = django_user_model.objects.create_user("ada")
    eve = django_user_model.objects.create_user("eve")
    # this process writes as well
    request.getfixturevalue("settings").COCOBASE_REALTIME = OPTIONS
    server = serve(request.param, settings=OPTIONS)
    with ExitStack() as stack:
        yield World(stack, server, ada, eve)
    log = server.log.read_text()
    assert "Traceback" not in log, log[log.index("Traceback") :][:3000]


EVERYTHING = [
    *({"type": "subscribe", "collection": name} for name in fuzz_inputs.COLLECTIONS),
    *(
        {"type": "subscribe", "collection": name, "subscription": f"{name} 2", "snapshot": True}
        | {"transitions": True}
        for name in fuzz_inputs.COLLECTIONS
    ),
    {"type": "subscribe", "collection": "posts", "subscription": "again", "since": "CURSOR-posts"},
    *({"type": "join", "room": room, "history": 9} for room in fuzz_inputs.ROOMS),
    {"type": "join", "room": "kept-1", "since": "CURSOR-kept-1"},
]
"""A valid request for each collection and room."""


def fuzz(examples):
    return settings(
        max_examples=max(1, examples),
        deadline=None,
        phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )


def exchange_frames(
    world, socket, frames, sync, is_answer, check_answer=lambda response: None, others=True
):
    """Send frames while data changes, and check each answer."""

    def wait_for_sync(number):
        socket.send(sync(number))
        while True:
            text = socket.recv(timeout=10)
            assert SECRET not in text, text
            response = json.loads(text)
            check_answer(response)
            if is_answer(response, number):
                return

    try:
        for number, frame in enumerate(frames):
            if isinstance(frame, str):
                socket.send(frame.encode("utf-8", "replace").decode())
            elif isinstance(frame, bytes):
                socket.send(frame)
            elif frame is not None:
                socket.send(world.fill_placeholders(json.dumps(frame), others))
            wait_for_sync(number)
            if number == 2:
                world.make_changes()
        world.make_changes()
        wait_for_sync(len(frames))
    except ConnectionClosed as closed:
        code = None if closed.rcvd is None else closed.rcvd.code
        assert code not in BROKEN, code


def names_in(tree):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key
            yield from names_in(value)
    elif isinstance(tree, list):
        for child in tree:
            yield from names_in(child)


def check_answer(response):
    if response["type"] == "error":
        assert ErrorCode(response["code"]) is not ErrorCode.INTERNAL_ERROR, response
        assert response["message"]
    if response["type"] == "subscribed" and response["collection"] in ("posts", "short"):
        assert not [
            n for n in names_in(response["filters"]) if fuzz_inputs.UNREADABLE in n or "body" in n
        ]
    assert response.get("collection") != "staff" or response["type"] == "unsubscribed", response


def test_native_dialect_reveals_no_secret(world):
    @fuzz(EXAMPLES // 10)
    @given(st.sampled_from(["key", "user", "user", "nothing"]), fuzz_inputs.talk)
    @example("user", EVERYTHING)
    @example("key", EVERYTHING)
    def run(first, frames):
        with connect(world.server.socket_url, proxy=None, max_size=None) as socket:
            if first != "nothing":
                token = world.key if first == "key" else world.token
                socket.send(json.dumps({"type": "auth", "token": token}))
                assert json.loads(socket.recv())["type"] == "authenticated"
            exchange_frames(
                world,
                socket,
                frames,
                lambda number: json.dumps({"type": "ping", "id": f"sync-{number}"}),
                lambda response, number: response.get("id") == f"sync-{number}",
                check_answer,
                others=first != "nothing",  # a connection without auth could become another user
            )

    run()


def test_sdk_dialect_reveals_no_secret(world):
    @fuzz(EXAMPLES // 10)
    @given(fuzz_inputs.paths, fuzz_inputs.firsts, fuzz_inputs.sdk_frame_lists)
    @example("/collections/checked", {}, [])
    @example("/collections/short", {}, [])
    @example("/collections/posts", {"filters": {"status": "draft"}}, [])
    @example("/rooms/kept-1", {"action": "create"}, [])
    @example("/rooms/blind-1", {"action": "join"}, [])
    @example("/broadcast", {}, [])
    def run(path, first, frames):
        url = world.server.socket_url + path
        with connect(url, proxy=None, max_size=None) as socket:
            socket.send(json.dumps({**first, "api_key": world.key}))
            exchange_frames(
                world,
                socket,
                [None, *frames],
                lambda number: '{"type":"ping"}',
                lambda response, number: response.get("type") == "pong",
            )

    run()


def test_http_views_reveal_no_secret(world):
    @fuzz(EXAMPLES // 3)
    @given(
        st.sampled_from(["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"]),
        st.sampled_from(["rooms", "rooms?format=list", "rooms?format=%00", "publish", "ready"]),
        st.sampled_from(["own", "publish", "", "\xff\xfe", "crk_a_b", "a.b.c", "x" * 9000]),
        st.sampled_from(["application/json", "multipart/form-data", "text/plain; charset=x", ""]),
        fuzz_inputs.bodies,
    )
    @example("GET", "rooms", "own", "", b"")
    def run(method, path, key, kind, body):
        key = {"own": world.key, "publish": world.publish_key}.get(key, key)
        status, text = world.http(method, path, key, body, **{"Content-Type": kind})
        assert status in (200, 202, 400, 401, 403, 405, 413), (status, text)
        assert SECRET not in text
        if text and status != 405:
            json.loads(text)

    run()

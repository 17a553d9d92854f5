"""Both clients against real servers (daphne and uvicorn) that are killed and restarted."""

import asyncio
import os
import time

import jwt
import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime.models import ApiKey
from tests.app.models import Post
from tests.clients.drivers import NodeDriver
from tests.clients.python_driver import PythonDriver

pytestmark = pytest.mark.server


@pytest.fixture(params=["python", "javascript"])
def client(request, monkeypatch):
    return PythonDriver(monkeypatch) if request.param == "python" else NodeDriver()


async def publish(title, status="published"):
    return (await Post.objects.acreate(title=title, status=status)).pk


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_client_resumes_after_server_restart(serve, api_key, client, kind):
    server = await asyncio.to_thread(serve, kind)
    await publish("before")
    published = {"filters": {"status": "published"}}
    async with client:
        await client.do("create", url=server.socket_url, tokens=api_key)
        await client.wait_for("db", "status", status="live")
        await client.do("watch", "w", collection="posts", options=published)
        await client.expect("w", "ready")
        options = {**published, "fields": ["title"], "order": "-id", "limit": 3}
        await client.do("live", "l", collection="posts", options=options)
        await client.wait_for("l", "ready")
        for round in range(2):
            titles = [f"{round}.{n}" for n in range(4)]
            await publish(titles[0])
            await client.expect("w", "event", event="created")
            await asyncio.to_thread(server.kill)
            await client.wait_for("db", "status", status="waiting")
            for title in titles[1:3]:
                await publish(title)
                await publish("draft", "draft")
            await asyncio.to_thread(server.start)
            await client.wait_for("db", "status", status="live")
            await publish(titles[3])
            for title in titles[1:]:
                report = await client.expect("w", "event", event="created")
                assert report["data"]["title"] == title
            shown = [{"title": title} for title in reversed(titles[1:])]
            while [
                document[1] for document in (await client.wait_for("l", "documents"))["documents"]
            ] != shown:
                pass
        await client.expect_nothing("w")


async def test_live_list_follows_rows_that_start_and_stop_matching(serve, api_key, client):
    server = await asyncio.to_thread(serve, "uvicorn")
    first = await publish("first")
    draft = await publish("second", "draft")
    async with client:
        await client.do("create", url=server.socket_url, tokens=api_key)
        options = {"filters": {"status": "published"}, "fields": ["title"], "order": "id"}
        await client.do("live", "l", collection="posts", options=options)
        await client.wait_for("l", "ready")
        await Post.objects.filter(pk=draft).aupdate(
            title="third"
        )  # not captured: this model has Django's default manager
        post = await Post.objects.aget(pk=draft)
        post.status = "published"
        await post.asave()
        second = [str(draft), {"title": "third"}]
        expected = [[str(first), {"title": "first"}], second]
        await client.expect("l", "documents", documents=expected)
        await asyncio.to_thread(server.kill)
        post = await Post.objects.aget(pk=first)
        post.status = "draft"
        await post.asave()
        await asyncio.to_thread(server.start)
        await client.expect("l", "documents", documents=[second])
        # after a filter change the old documents stay until the new ones arrive
        await client.do("update", "l", options={"filters": {"status": "draft"}})
        await client.expect("l", "documents", documents=[[str(first), {"title": "first"}]])


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_refused_subscriptions_and_broadcasts_over_a_restart(serve, api_key, client, kind):
    server = await asyncio.to_thread(serve, kind)
    async with client:
        await client.do("create", url=server.socket_url, tokens=api_key)
        await client.do("watch", "w", collection="secrets")
        await client.do("watch", "v", collection="posts", options={"filters": {"nope": 1}})
        await client.wait_for("w", "error", code="unknown_collection")
        await client.wait_for("v", "error", code="invalid_filter")
        await client.do("room", "r", name="news")
        await client.expect("r", "ready")
        await client.do("broadcast", "r", message={"text": "hi"}, tag="a")
        reports = [await client.expect("r", what) for what in ("message", "sent")]
        assert reports[0]["message"] == {"text": "hi"}
        await asyncio.to_thread(server.kill)
        await client.wait_for("db", "status", status="waiting")
        await client.do("broadcast", "r", message={"text": "late"}, tag="b")
        await asyncio.to_thread(server.start)
        await client.wait_for("r", "sent", tag="b")
        await asyncio.to_thread(server.post, "/broadcast", "from the server")
        await client.wait_for("r", "message", message={"text": "from the server"})


@pytest.mark.skipif(
    os.environ.get("TEST_DATABASE") == "postgres", reason="It does not depend on the database."
)
async def test_visitor_reads_what_is_public_and_key_gets_another_scope(serve, client):
    settings = {
        "AUTHENTICATORS": [
            "django_cocobase_realtime.auth.api_key.ApiKeyAuthenticator",
            "django_cocobase_realtime.auth.django_session.DjangoSessionAuthenticator",
            "django_cocobase_realtime.auth.anonymous.Anonymous",
        ],
        "COLLECTIONS": {
            "posts": {"model": "app.Post", "fields": ["title"], "public": True},
            "messages": "app.Message",
        },
        "ROOMS": {"news": {"public": True}, "*": {}},
        "REVOCATION_POLL": 0.5,
    }
    server = await asyncio.to_thread(lambda: serve("uvicorn", settings=settings))
    key, text = await sync_to_async(ApiKey.objects.create_key)("k", collections=["posts"])
    async with client:
        for token in (None, text):
            await client.do("create", url=server.socket_url, tokens=token)
            await client.wait_for("db", "status", status="live")
            await client.do("watch", "w", collection="posts", options={"snapshot": True})
            await client.do("watch", "m", collection="messages")
            await client.wait_for("w", "ready")
            await client.wait_for("m", "error", code="unknown_collection")
            await client.do("room", "r", name="news")
            await client.wait_for("r", "ready")
            await client.do("broadcast", "r", message="hi", tag="a")
            await client.wait_for("r", "sent" if token else "failed")
            await publish("x")
            await client.wait_for("w", "event", event="created")
            if token:
                await ApiKey.objects.filter(pk=key.pk).aupdate(read_only=True)
                await client.wait_for("db", "status", status="waiting", delay=0)  # 4201
                await client.wait_for("w", "resync", reason="scope_changed")
                await client.wait_for("w", "snapshot")
            await client.do("close")
            await client.wait_for("db", "status", status="closed")


async def test_invalid_key_closes_the_client(serve, client):
    server = await asyncio.to_thread(serve, "uvicorn")
    async with client:
        await client.do("create", url=server.socket_url, tokens="crk_bad_key")
        await client.wait_for("db", "status", status="closed", code=4500)


@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_room_history_and_presence_over_a_restart(serve, user, client, kind, monkeypatch):
    rooms = {"ROOMS": {"chat-*": {"history": 5}}}
    server = await asyncio.to_thread(lambda: serve(kind, settings=rooms))
    bob = await sync_to_async(user.__class__.objects.create_user)("bob")
    token = {person.username: create_jwt(person) for person in (user, bob)}
    other = PythonDriver(monkeypatch)
    async with client, other:
        for driver, name in ((client, "ada"), (other, "bob")):
            await driver.do("create", url=server.socket_url, tokens=token[name])
            options = {"history": 5, "state": {"mood": name}}
            await driver.do("room", "r", name="chat-1", options=options)
            await driver.wait_for("r", "ready")
        await client.wait_for("r", "presence", event="joined", id=str(bob.pk))
        await client.do("members", "r")
        report = await client.expect("r", "members", participants=2)
        assert [member["state"] for member in report["members"]] == [
            {"mood": "ada"},
            {"mood": "bob"},
        ]
        await other.do("state", "r", state={"typing": True})
        await client.expect("r", "presence", event="updated", id=str(bob.pk))
        await other.do("broadcast", "r", message="one", tag="1")
        await client.expect("r", "message", message="one", replayed=False)
        await other.do("room", "short", name="chat-2")
        await client.do("room", "short", name="chat-2")
        for driver in (client, other):
            await driver.wait_for("short", "ready")
        await other.do("leave", "short")
        await client.wait_for("short", "presence", event="left", id=str(bob.pk))
        await asyncio.to_thread(server.kill)
        for driver in (client, other):
            await driver.wait_for("db", "status", status="waiting")
        await other.do("broadcast", "r", message="two", tag="2")
        await asyncio.to_thread(server.start)
        await other.wait_for("r", "sent", tag="2")
        await client.wait_for("r", "message", message="two")
        # a client that joins later receives the history
        await client.do("leave", "r")
        await client.do("room", "again", name="chat-1", options={"history": 5})
        for words in ("one", "two"):
            await client.wait_for("again", "message", message=words, replayed=True)


def create_jwt(user):
    claims = {"sub": str(user.pk), "exp": time.time() + 600}
    return jwt.encode(claims, "a-shared-secret-of-more-than-32-bytes!", "HS256")

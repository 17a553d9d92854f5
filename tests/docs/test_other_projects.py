"""The guides for projects with consumers, several databases, managers, or model observers."""

import sys
from types import ModuleType

import pytest
from channels.layers import get_channel_layer
from channels.testing import WebsocketCommunicator
from django.core import checks
from django.db import models
from django.test import override_settings
from django.test.utils import isolate_apps
from rest_framework import serializers

from django_cocobase_realtime.declarations.registry import registry
from django_cocobase_realtime.routing import realtime_application
from tests.app.models import Post
from tests.support.blocks import ROOT, code_blocks

GUIDES = ROOT / "docs" / "how-to"


def python_block(page, beginning):
    (block,) = (b for b in code_blocks(GUIDES / page, "python") if b.startswith(beginning))
    return block


@pytest.fixture
def modules(monkeypatch):
    """Execute blocks of a guide as modules: ``modules("chat.consumers", code)``."""

    def create(name, code):
        parent = name.partition(".")[0]
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        module = ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        exec(compile(code, name, "exec"), module.__dict__)
        return module

    return create


async def test_consumer_and_collections_are_routed(modules, user, transactional_db):
    modules("chat.consumers", python_block("channels.md", "# chat/consumers.py"))
    module = modules("mysite.asgi", python_block("channels.md", "# mysite/asgi.py"))
    origin = (b"origin", b"http://testserver")

    chat = WebsocketCommunicator(module.application, "/ws/chat/", [origin])
    assert (await chat.connect())[0]
    await get_channel_layer().group_send("chat", {"type": "chat.message", "text": "hi"})
    assert await chat.receive_json_from() == {"text": "hi"}
    await chat.disconnect()

    realtime = WebsocketCommunicator(module.application, "/realtime/", [origin])
    assert (await realtime.connect())[0]
    await realtime.send_json_to({"type": "ping"})
    assert await realtime.receive_json_from() == {"type": "pong"}
    await realtime.disconnect()

    unknown = WebsocketCommunicator(module.application, "/ws/other/", [origin])
    assert not (await unknown.connect())[0]


@pytest.mark.parametrize(("origin", "accepted"), [(b"http://testserver", True), (None, False)])
async def test_user_of_a_middleware_counts_with_an_origin(user, transactional_db, origin, accepted):
    inner = realtime_application()

    async def middleware(scope, receive, send):
        await inner({**scope, "user": user}, receive, send)

    headers = [(b"host", b"testserver")] + ([(b"origin", origin)] if origin else [])
    communicator = WebsocketCommunicator(middleware, "/realtime", headers)
    assert (await communicator.connect())[0]
    await communicator.send_json_to({"type": "auth"})
    reply = await communicator.receive_json_from()
    assert (reply["type"] == "authenticated") is accepted
    await communicator.disconnect()


@pytest.mark.parametrize("log_is_admitted", [True, False])
def test_router_admits_the_log(modules, log_is_admitted):
    code = python_block("databases.md", "# mysite/routers.py")
    # the app of the tests stands for that of the guide, and their second database for its own
    code = code.replace('"shop"', '"app"', 1).replace('== "shop"', '== "app"')
    code = code.replace('db == "app"', 'db == "other"').replace('return "shop"', 'return "other"')
    if not log_is_admitted:
        code = code.replace("return True  #", "return db == 'default'  #")
    router = modules("mysite.routers", code).ShopRouter()
    with override_settings(DATABASE_ROUTERS=[router]):
        assert registry.get("posts").database == "other"
        ids = {message.id for message in checks.run_checks(databases=[])}
    assert ("cocobase_realtime.E015" in ids) is not log_is_admitted
    assert "cocobase_realtime.W016" not in ids


async def test_manager_that_hides_rows_is_no_permission(realtime, user, settings):
    class VisiblePosts(models.Manager):
        def get_queryset(self):
            return super().get_queryset().filter(status="published")

    with isolate_apps("tests.app"):

        class VisiblePost(Post):
            objects = VisiblePosts()

            class Meta:
                proxy = True
                app_label = "app"
                default_manager_name = base_manager_name = "objects"

    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"visible": {"model": VisiblePost}}}
    await Post.objects.acreate(title="draft")
    assert not await VisiblePost.objects.aexists()
    async with realtime(user=user) as client:
        await client.subscribe("visible", snapshot=True)
        (document,) = (await client.receive("snapshot"))["documents"]
        assert document["data"]["title"] == "draft"
        await VisiblePost.objects.acreate(title="another draft")
        event = await client.receive("event")
        assert event["document"]["data"]["title"] == "another draft"


async def test_collection_replaces_an_observer(
    modules, realtime, user, django_user_model, request, settings
):
    class TicketSerializer(serializers.ModelSerializer):
        class Meta:
            model = Post
            fields = ["title"]

    code = python_block("from-dcrf.md", "# tickets/realtime.py")
    names = {"Ticket": Post, "TicketSerializer": TicketSerializer}
    request.addfinalizer(lambda: registry.unregister("tickets"))
    exec(compile(code, "tickets.realtime", "exec"), names)
    settings.COCOBASE_REALTIME = {}  # so that nothing is cached from before
    other = await django_user_model.objects.acreate(username="bob")
    async with realtime(user=user) as client:
        await client.subscribe("tickets", filters={"status": "open"}, transitions=True)
        await Post.objects.acreate(title="of another user", status="open", owner=other)
        post = await Post.objects.acreate(title="own", status="open", owner=user)
        event = await client.receive("event")
        assert (event["event"], event["document"]["data"]) == ("created", {"title": "own"})
        await Post.objects.filter(pk=post.pk).aupdate(status="closed")
        event = await client.receive("event")
        assert (event["event"], event["document"]) == ("left", {"id": str(post.pk)})

"""Routing, HTTP views, the public face and the test helpers."""

import asyncio
import subprocess
import sys

import pytest
from channels.testing import WebsocketCommunicator
from django.db import DatabaseError

import django_cocobase_realtime
from django_cocobase_realtime.routing import realtime_application
from django_cocobase_realtime.testing import LossyChannelLayer, capture_events
from tests.app.models import Message, Post
from tests.support.servers import ROOT


async def accepted(path="/realtime", origin=None, host=b"testserver", prefix=None):
    headers = [(b"host", host)] + ([(b"origin", origin)] if origin else [])
    application = realtime_application(prefix) if prefix else realtime_application()
    communicator = WebsocketCommunicator(application, path, headers)
    connected, _ = await communicator.connect()
    await communicator.disconnect()
    return connected


@pytest.mark.parametrize(
    ("path", "prefix", "found"),
    [
        ("/realtime", None, True),
        ("/realtime/", None, True),
        ("/realtime/x", None, False),
        ("/", None, False),
        ("/live/ws/", "/live/ws/", True),
    ],
)
async def test_routes(path, prefix, found, transactional_db):
    assert await accepted(path, prefix=prefix) is found


async def test_a_wrong_path_or_page_is_told_in_one_line_of_the_log(caplog, transactional_db):
    assert not await accepted("/realtme")
    assert not await accepted(origin=b"http://evil.example")
    assert [record.getMessage() for record in caplog.records] == [
        "There is no WebSocket at '/realtme'.",
        "Pages of 'http://evil.example' may not connect; see ALLOWED_ORIGINS.",
    ]


def test_an_app_that_is_not_installed_says_so():
    code = (
        "import django; from django.conf import settings\n"
        "apps = ['django.contrib.contenttypes', 'django.contrib.auth']\n"
        "settings.configure(INSTALLED_APPS=apps)\n"
        "django.setup()\n"
        "import django_cocobase_realtime.consumers.consumer"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr.endswith("Add 'django_cocobase_realtime' to INSTALLED_APPS.\n")


@pytest.mark.parametrize(
    ("allowed", "origin", "may"),
    [
        (None, None, True),
        (None, b"http://testserver", True),
        (None, b"http://testserver:8000", True),
        (None, b"http://evil.example", False),
        (None, b"null", False),
        (["https://app.example"], b"https://app.example", True),
        (["https://app.example"], b"http://app.example", False),
        (["https://app.example"], b"http://testserver", False),
        (["https://.example"], b"https://a.example", True),
        (["*"], b"https://anywhere.example", True),
    ],
)
async def test_origins(settings, allowed, origin, may, transactional_db):
    settings.COCOBASE_REALTIME = {"ALLOWED_ORIGINS": allowed}
    assert await accepted(origin=origin) is may


async def test_with_a_wildcard_only_the_sites_own_pages_act_as_its_visitor(settings):
    settings.COCOBASE_REALTIME = {"ALLOWED_ORIGINS": ["*"]}
    scopes = []

    async def seen(scope, receive, send):
        scopes.append(scope["realtime_origin_checked"])

    validator = realtime_application()
    validator.application = seen
    for origin in (b"http://testserver", b"http://evil.example"):
        headers = [(b"host", b"testserver"), (b"origin", origin)]
        await validator({"type": "websocket", "headers": headers}, None, None)
    assert scopes == [True, False]


def test_routing_may_be_imported_before_django_is_set_up():
    code = "import django_cocobase_realtime.routing as r; r.realtime_application()"
    command = [sys.executable, "-W", "error", "-c", code]
    env = {"DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=ROOT, env=env, check=True)


def test_the_public_face():
    for name in django_cocobase_realtime.__all__:
        assert getattr(django_cocobase_realtime, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        django_cocobase_realtime.nothing  # noqa: B018


@pytest.mark.django_db
def test_health_and_readiness(client, settings, monkeypatch):
    assert client.get("/realtime/health").json() == {"status": "ok"}
    assert client.get("/realtime/ready").json() == {"status": "ok"}
    assert client.post("/realtime/ready").status_code == 405
    settings.CHANNEL_LAYERS = {}
    assert client.get("/realtime/ready").status_code == 503

    def gone(self):
        raise DatabaseError("gone")

    monkeypatch.setattr("django.db.backends.base.base.BaseDatabaseWrapper.cursor", gone)
    answer = client.get("/realtime/ready")
    assert (answer.status_code, answer.json()) == (503, {"status": "database unavailable"})


@pytest.mark.django_db(transaction=True)
def test_capture_events():
    with capture_events() as events:
        Message.objects.create(text="x")
    Message.objects.create(text="y")
    assert [e.after["text"] for e in events] == ["x"]


@pytest.mark.parametrize("durable", [True, False])
async def test_what_an_unkind_layer_loses_the_log_has(realtime, api_key, settings, durable):
    posts = {"model": "app.Post", "durable": durable}
    settings.COCOBASE_REALTIME = {"COLLECTIONS": {"posts": posts}}
    backend = f"{LossyChannelLayer.__module__}.{LossyChannelLayer.__qualname__}"
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": backend, "CONFIG": {"loss": 0.5, "seed": 1}}}
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        for n in range(40):
            await Post.objects.acreate(title=str(n))
            await asyncio.sleep(0)
        seen = []
        while not await client.receive_nothing(0.2):
            seen.append(int((await client.receive("event"))["document"]["data"]["title"]))
        assert seen == sorted(seen)
        assert len(seen) == 40 if durable else 0 < len(seen) < 40


async def test_the_last_connection_leaves_nothing_running(realtime, api_key):
    before = len(asyncio.all_tasks())
    async with realtime(token=api_key) as client:
        await client.subscribe("posts")
        assert len(asyncio.all_tasks()) > before
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) == before


def test_the_test_helpers_need_no_pytest():
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "import django; django.setup()\n"
        "from django_cocobase_realtime.testing import capture_events, connect"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

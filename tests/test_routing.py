"""Routing of WebSockets: paths, and the pages that may connect."""

import subprocess
import sys

import pytest
from channels.routing import URLRouter
from channels.testing import WebsocketCommunicator
from django.urls import re_path

from django_cocobase_realtime.routing import realtime_application
from tests.support.servers import ROOT


async def is_accepted(path="/realtime", origin=None, host=b"testserver", prefix=None, root=None):
    headers = [(b"host", host)] + ([(b"origin", origin)] if origin else [])
    application = realtime_application(prefix) if prefix else realtime_application()
    communicator = WebsocketCommunicator(application, path, headers)
    if root is not None:
        communicator.scope["root_path"] = root
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
async def test_path_is_routed_with_or_without_trailing_slash(path, prefix, found, transactional_db):
    assert await is_accepted(path, prefix=prefix) is found


@pytest.mark.parametrize(
    ("root", "path", "found"),
    [
        ("/app", "/app/realtime", True),
        ("/app", "/realtime", True),
        ("/app/", "/app/realtime/", True),
        ("/app", "/app/realtime/broadcast", True),
        ("/app", "/realtime/rooms/x", True),
        ("/realtime", "/realtime", True),
        ("/realtime", "/realtime/realtime", True),
        ("/app", "/apprealtime", False),
        ("/app", "/other/realtime", False),
        ("/app", "/app/app/realtime", False),
        ("", "/app/realtime", False),
    ],
)
async def test_path_is_routed_with_and_without_prefix_of_site(
    root, path, found, settings, transactional_db
):
    assert await is_accepted(path, root=root) is found
    settings.FORCE_SCRIPT_NAME = root
    assert await is_accepted(path, root="/overridden" if root else "") is found


@pytest.mark.parametrize(
    ("path", "root", "script_name", "found"),
    [
        ("/realtime", "", None, True),
        ("/nested/realtime/broadcast", "", None, True),
        ("/nested/realtme", "", None, False),
        ("/app/realtime", "/app", None, True),
        ("/app/nested/realtime", "/app", None, True),
        ("/app/realtime", "", "/app", True),
        ("/realtime", "", "/app", True),
    ],
)
async def test_path_is_routed_inside_a_router_of_channels(
    path, root, script_name, found, settings, transactional_db
):
    settings.FORCE_SCRIPT_NAME = script_name
    application = realtime_application()
    router = URLRouter([re_path(r"^nested/", application), re_path("", application)])
    communicator = WebsocketCommunicator(router, path)
    communicator.scope["root_path"] = root
    assert (await communicator.connect())[0] is found
    await communicator.disconnect()


async def test_wrong_path_or_origin_is_logged(caplog, transactional_db):
    assert not await is_accepted("/realtme")
    assert not await is_accepted(origin=b"http://evil.example")
    assert [record.getMessage() for record in caplog.records] == [
        "There is no WebSocket at '/realtme'.",
        "Pages of 'http://evil.example' may not connect; see ALLOWED_ORIGINS.",
    ]


@pytest.mark.parametrize(
    ("allowed", "origin", "accepted"),
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
async def test_origin_is_accepted_by_allowed_origins(
    settings, allowed, origin, accepted, transactional_db
):
    settings.COCOBASE_REALTIME = {"ALLOWED_ORIGINS": allowed}
    assert await is_accepted(origin=origin) is accepted


async def test_wildcard_origin_does_not_allow_sessions_of_other_sites(settings):
    settings.COCOBASE_REALTIME = {"ALLOWED_ORIGINS": ["*"]}
    scopes = []

    async def record_scope(scope, receive, send):
        scopes.append(scope["realtime_origin_checked"])

    validator = realtime_application()
    validator.application = record_scope
    for origin in (b"http://testserver", b"http://evil.example"):
        headers = [(b"host", b"testserver"), (b"origin", origin)]
        await validator({"type": "websocket", "headers": headers}, None, None)
    assert scopes == [True, False]


def test_routing_can_be_imported_before_django_setup():
    code = "import django_cocobase_realtime.routing as r; r.realtime_application()"
    command = [sys.executable, "-W", "error", "-c", code]
    env = {"DJANGO_SETTINGS_MODULE": "tests.settings", "PATH": "/usr/bin:/bin"}
    subprocess.run(command, cwd=ROOT, env=env, check=True)

"""WebSockets while the server is draining, as the application sees them."""

import asyncio

import pytest

from django_cocobase_realtime.hub.drain import drain
from django_cocobase_realtime.permissions import Permission
from django_cocobase_realtime.routing import realtime_application
from tests.support.sockets import AsgiSocket, open_socket

pytestmark = pytest.mark.django_db(transaction=True)
PATHS = ["/realtime", "/realtime/rooms/lobby", "/realtime/broadcast"]


@pytest.fixture
def draining(monkeypatch):
    monkeypatch.setattr(drain, "is_draining", True)


async def open_and_end(path, **more):
    """Open a WebSocket that the application ends by itself."""
    socket = AsgiSocket()
    scope = {"type": "websocket", "path": path, "subprotocols": [], "headers": []}
    scope |= {"query_string": b"", "client": ("127.0.0.1", 1), **more}
    await socket.incoming.put({"type": "websocket.connect"})
    application = realtime_application()(scope, socket.incoming.get, socket.send)
    await asyncio.wait_for(application, 5)
    return socket


@pytest.mark.parametrize("path", PATHS)
async def test_handshake_is_answered_with_503_if_the_server_can_do_that(draining, path):
    socket = await open_and_end(path, extensions={"websocket.http.response": {}})
    start, body = socket.sent
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
    assert (b"retry-after", b"1") in start["headers"]
    assert body == {"type": "websocket.http.response.body", "body": b""}


@pytest.mark.parametrize("path", PATHS)
async def test_websocket_is_closed_with_4200_if_it_cannot_be_refused(draining, path):
    socket = await open_and_end(path)
    assert socket.sent[0] == {"type": "websocket.accept"}
    assert socket.close_code == 4200
    codes = [frame["code"] for frame in socket.frames]
    assert codes == ([4200] if path == "/realtime" else [])


async def test_sdk_that_was_accepted_before_is_served_until_it_is_closed(
    user, api_key, monkeypatch
):
    socket = AsgiSocket()
    scope = {"type": "websocket", "path": PATHS[1], "subprotocols": [], "headers": []}
    scope |= {"query_string": b"", "client": ("127.0.0.1", 1)}
    scope["extensions"] = {"websocket.http.response": {}}
    application = realtime_application()(scope, socket.incoming.get, socket.send)
    task = asyncio.create_task(application)
    await socket.incoming.put({"type": "websocket.connect"})
    await socket.wait_until(lambda: socket.sent)
    monkeypatch.setattr(drain, "is_draining", True)
    await socket.send_frame(api_key=api_key, action="create")
    await socket.wait_until(lambda: socket.frames)
    assert socket.frames[0]["event"] == "joined"
    (close,) = drain._sockets
    close(300)
    await socket.wait_until(lambda: socket.close_code is not None)
    assert socket.close_code == 4200
    assert len(socket.frames) == 1
    await socket.incoming.put({"type": "websocket.disconnect", "code": 4200})
    await asyncio.wait_for(task, 5)
    assert len(drain) == 0


class Slow(Permission):
    seconds = 0.0

    async def wait(self):
        await asyncio.sleep(self.seconds)

    def can_subscribe(self, identity, filters):
        asyncio.run(self.wait())
        return True


@pytest.mark.parametrize(("timeout", "answered"), [(30.0, True), (0.1, False)])
async def test_request_in_progress_is_answered_before_the_close(
    settings, user, monkeypatch, timeout, answered
):
    """Unless it takes longer than the time limit."""
    monkeypatch.setattr("django_cocobase_realtime.consumers.draining.REQUEST_TIMEOUT", timeout)
    monkeypatch.setattr(Slow, "seconds", 1.0)
    settings.COCOBASE_REALTIME = {
        "COLLECTIONS": {"posts": {"model": "app.Post", "permission": f"{__name__}.Slow"}},
    }
    async with open_socket(user=user) as socket:
        await socket.send_frame(type="subscribe", collection="posts")
        await asyncio.sleep(0.1)
        (close,) = drain._sockets
        close(300)
        await socket.wait_until(lambda: socket.close_code is not None)
        assert socket.close_code == 4200
        types = [frame["type"] for frame in socket.frames]
        assert types == ["authenticated", *(["subscribed"] if answered else []), "closing"]
        assert socket.frames[-1]["retry_after_ms"] == 300
    assert len(drain) == 0

"""The unmodified npm package ``cocobase`` against a real server."""

import asyncio
import json
import os
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async

from django_cocobase_realtime.models import ApiKey
from tests.app.models import Post
from tests.support.chromium import ARGUMENTS, CHROMIUM, require_chromium
from tests.support.npm import install_package

pytestmark = pytest.mark.server
HERE = Path(__file__).parent
TIMEOUT = 20.0
LIMITS = {"LIMITS": {"unauthenticated_per_address": 100, "failed_auths_per_minute": 1000}}
ENTRIES = {"1.6.0": "dist/index.js", "1.5.2": "dist/core/core.js"}


def install_sdk(version):
    """Install the package and return its folder."""
    return install_package("cocobase", version, required_by="REQUIRE_SERVERS")


class Sdk:
    """A Node process that runs the SDK."""

    def __init__(self, process):
        self.process = process
        self.events = []

    async def do(self, *command):
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        await self.process.stdin.drain()

    async def wait_for_event(self, name, kind, timeout=TIMEOUT):
        """Return the data of the object's next event of this kind; keep the other events."""
        async with asyncio.timeout(timeout):
            while True:
                for index, event in enumerate(self.events):
                    if (event["name"], event["kind"]) == (name, kind):
                        return self.events.pop(index).get("data")
                line = await self.process.stdout.readline()
                assert line, "Node ended"
                self.events.append(json.loads(line))

    async def expect_nothing(self, seconds=0.5):
        try:
            async with asyncio.timeout(seconds):
                line = await self.process.stdout.readline()
        except TimeoutError:
            return
        raise AssertionError(line or "Node ended")


class LoadBalancer:
    """A TCP proxy that holds connections until the server behind it accepts them."""

    def __init__(self, server_port):
        self.server_port = server_port

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1")
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *failure):
        self.server.close()

    async def serve(self, reader, writer):
        while True:
            try:
                inner, outer = await asyncio.open_connection("127.0.0.1", self.server_port)
                break
            except OSError:
                await asyncio.sleep(0.1)
        await asyncio.gather(self.forward(reader, outer), self.forward(inner, writer))

    async def forward(self, reader, writer):
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def node(version, server, key):
    entry = await asyncio.to_thread(lambda: install_sdk(version) / ENTRIES[version])
    process = await asyncio.create_subprocess_exec(
        *("node", "--no-warnings", "--experimental-websocket", "--import", str(HERE / "hook.mjs")),
        *(str(HERE / "driver.mjs"), str(entry), key),
        env={**os.environ, "REALTIME_TARGET": f"http://127.0.0.1:{server.port}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    sdk = Sdk(process)
    try:
        await sdk.wait_for_event("driver", "ready")
        yield sdk
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
@pytest.mark.parametrize("version", list(ENTRIES))
async def test_collection_watch_receives_changes(serve, api_key, version, kind):
    server = await asyncio.to_thread(lambda: serve(kind, settings=LIMITS))
    async with node(version, server, api_key) as sdk:
        await sdk.do("watch", "w", "posts", {"status": "published", "views_gte": 3})
        connected = await sdk.wait_for_event("w", "connected")
        assert connected["filters"] == {"status": "published", "views_gte": 3}
        await Post.objects.acreate(title="draft", views=5)
        post = await Post.objects.acreate(title="one", status="published", views=5)
        frame = await sdk.wait_for_event("w", "create")
        assert frame["data"]["id"] == frame["document"]["id"] == str(post.pk)
        assert frame["document"]["data"]["title"] == "one"
        post.title = "two"
        await post.asave()
        frame = await sdk.wait_for_event("w", "update")
        assert frame["document"]["data"]["title"] == "two"
        await post.adelete()
        assert (await sdk.wait_for_event("w", "delete"))["document"]["id"] == str(
            get_post_id(frame)
        )
        assert sdk.events == []
        await sdk.do("unwatch", "w")
        await Post.objects.acreate(title="late", status="published", views=5)
        await sdk.expect_nothing(1.5)


def get_post_id(frame):
    return frame["data"]["id"]


@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
@pytest.mark.parametrize("version", list(ENTRIES))
async def test_broadcasts_and_rooms(serve, api_key, version, kind):
    server = await asyncio.to_thread(lambda: serve(kind, settings=LIMITS))
    async with node(version, server, api_key) as sdk:
        await sdk.do("broadcast", "a", "1", "Ann")
        await sdk.do("broadcast", "b", "2", "Bob")
        async with asyncio.timeout(TIMEOUT):  # the SDK does not report when it is connected
            while not any(event["name"] == "b" for event in sdk.events):
                await sdk.do("send", "a", {"hello": "all"})
                try:
                    sdk.events.append(
                        {
                            "name": "b",
                            "kind": "seen",
                            "data": await sdk.wait_for_event("b", "message", 0.3),
                        }
                    )
                except TimeoutError:
                    continue
        frame = sdk.events.pop()["data"]
        assert (frame["user_id"], frame["user_name"], frame["data"]) == (
            "1",
            "Ann",
            {"hello": "all"},
        )
        assert (await sdk.wait_for_event("a", "message"))["data"] == {"hello": "all"}

        await sdk.do("room", "ann", "create", "lobby", "1", "Ann", "The Lobby")
        joined = await sdk.wait_for_event("ann", "joined")
        assert (joined["room_title"], joined["participants"]) == ("The Lobby", 1)
        await sdk.do("room", "bob", "join", "lobby", "2", "Bob")
        assert (await sdk.wait_for_event("bob", "joined"))["participants"] == 2
        frame = await sdk.wait_for_event("ann", "user_joined")
        assert (frame["user_name"], frame["room_info"]["participants"]) == ("Bob", 2)
        await sdk.do("sendMessage", "bob", "Hi!")
        for name in ("ann", "bob"):
            frame = await sdk.wait_for_event(name, "message")
            assert (frame["content"], frame["user_name"]) == ("Hi!", "Bob")
            assert frame["room_info"] == {"id": "lobby", "title": "The Lobby"}
        await sdk.do("list", "l")
        rooms = await sdk.wait_for_event("l", "rooms")
        assert rooms["total"] == 1
        assert rooms["rooms"][0]["participant_list"] == [
            {"id": "1", "name": "Ann", "verified": False},
            {"id": "2", "name": "Bob", "verified": False},
        ]
        await sdk.do("leave", "bob")
        frame = await sdk.wait_for_event("ann", "user_left")
        assert (frame["user_name"], frame["room_info"]["participants"]) == ("Bob", 1)
        await sdk.do("room", "lost", "join", "nowhere", "3", "Eve")
        assert (await sdk.wait_for_event("lost", "error"))["error"] == "Room not found"


@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_sdk_reconnects_after_server_restart(serve, api_key, kind):
    """1.6.0 only: 1.5.2 opens a socket again, but without its handlers.

    The WebSocket of Node 20 does not report a refused connection, so that the SDK would wait
    forever. A load balancer is in front of the server, as in a deployment.
    """
    server = await asyncio.to_thread(lambda: serve(kind, settings=LIMITS))
    async with LoadBalancer(server.port) as balancer, node("1.6.0", balancer, api_key) as sdk:
        await sdk.do("watch", "w", "posts", {"status": "published"})
        await sdk.do("room", "r", "create", "lobby", "1", "Ann", "T")
        await sdk.wait_for_event("w", "connected")
        await sdk.wait_for_event("r", "joined")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await sdk.wait_for_event("w", "reconnect", 40)
        await sdk.wait_for_event("w", "connected", 40)
        assert (await sdk.wait_for_event("r", "joined", 40))["room_title"] == "T"
        await Post.objects.acreate(title="after", status="published")
        assert (await sdk.wait_for_event("w", "create"))["document"]["data"]["title"] == "after"
        await sdk.do("sendMessage", "r", "still here")
        assert (await sdk.wait_for_event("r", "message"))["content"] == "still here"


@pytest.mark.timeout(200)
async def test_rejected_sdk_receives_the_error(serve, api_key):
    server = await asyncio.to_thread(lambda: serve("uvicorn", settings=LIMITS))
    async with node("1.6.0", server, "crk_12345678_wrong") as sdk:
        await sdk.do("room", "r", "create", "lobby", "1", "Ann", "T")
        for _ in range(2):  # the SDK tries again each time
            frame = await sdk.wait_for_event("r", "error")
            assert (frame["error"], frame["error_detail"]) == (
                "Invalid API key",
                "Project not found",
            )
        await sdk.do("list", "l")
        assert "valid key" in await sdk.wait_for_event("l", "failed")


FLOW = """(key) => {
  document.body.innerHTML = '<ul id="reports"></ul>';
  const db = new CocobaseSDK.Cocobase({apiKey: key});
  const report = (text) => {
    const item = document.createElement("li");
    item.textContent = text;
    document.getElementById("reports").append(item);
  };
  const watcher = db.realtime.collection("posts", {status: "published"});
  watcher.onConnected(() => report("watching"));
  watcher.onCreate(({document}) => report("created " + document.data.title));
  watcher.connect();
  const room = db.realtime.room("lobby", "1", "Ann");
  room.on("joined", () => { report("joined"); room.sendMessage("hello"); });
  room.on("message", (frame) => report(frame.user_name + ": " + frame.content));
  room.create("The Lobby");
  db.realtime.listRooms().then(({total}) => report("rooms listed: " + typeof total));
}"""
REWRITE = """
const own = (url) => String(url).replace(
  /^(https?|wss?):\\/\\/(?:api|cloud)\\.cocobase\\.cc/,
  (_, scheme) => location.origin.replace(/^http/, scheme.startsWith("ws") ? "ws" : "http"));
window.WebSocket = class extends WebSocket { constructor(url) { super(own(url)); } };
const nativeFetch = window.fetch;
window.fetch = (url, ...rest) => nativeFetch(own(url), ...rest);
"""


@pytest.mark.browser
@pytest.mark.timeout(200)
async def test_sdk_in_browser(serve, transactional_db):
    from playwright.async_api import async_playwright, expect

    require_chromium()
    server = await asyncio.to_thread(lambda: serve("daphne", settings=LIMITS))
    _, key = await sync_to_async(ApiKey.objects.create_key)("browser")
    script = await asyncio.to_thread(
        lambda: (install_sdk("1.6.0") / "dist" / "browser" / "cocobase.min.js").read_text()
    )
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await browser.new_page()
        await page.add_init_script(REWRITE)
        # a page of the server itself: Chromium keeps other pages from local servers
        await page.goto(f"http://127.0.0.1:{server.port}/realtime/health")
        await page.add_script_tag(content=script)
        await page.evaluate(FLOW, key)
        reports = page.locator("#reports")
        for text in ("watching", "joined", "Ann: hello", "rooms listed: number"):
            await expect(reports.get_by_text(text, exact=True)).to_be_visible(timeout=20_000)
        await Post.objects.acreate(title="from Django", status="published")
        created = reports.get_by_text("created from Django")
        await expect(created).to_be_visible(timeout=20_000)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await expect(reports.get_by_text("watching", exact=True)).to_have_count(2, timeout=40_000)
        await expect(reports.get_by_text("Ann: hello")).to_have_count(2, timeout=40_000)
        await browser.close()

"""The npm package ``cocobase`` as it is published, unmodified, against a real server."""

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


def cocobase(version):
    """The folder of the package."""
    return install_package("cocobase", version, required_by="REQUIRE_SERVERS")


class Sdk:
    """A Node process with the SDK in it."""

    def __init__(self, process):
        self.process = process
        self.waiting = []

    async def do(self, *command):
        self.process.stdin.write(json.dumps(command).encode() + b"\n")
        await self.process.stdin.drain()

    async def hears(self, name, what, timeout=TIMEOUT):
        """What this handler is called with next, for this event; others wait their turn."""
        async with asyncio.timeout(timeout):
            while True:
                for index, each in enumerate(self.waiting):
                    if (each["name"], each["what"]) == (name, what):
                        return self.waiting.pop(index).get("data")
                line = await self.process.stdout.readline()
                assert line, "Node ended"
                self.waiting.append(json.loads(line))

    async def nothing(self, seconds=0.5):
        try:
            async with asyncio.timeout(seconds):
                line = await self.process.stdout.readline()
        except TimeoutError:
            return
        raise AssertionError(line or "Node ended")


class Balancer:
    """Passes connections on, once the server behind it is there."""

    def __init__(self, behind):
        self.behind = behind

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1")
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *failure):
        self.server.close()

    async def serve(self, reader, writer):
        while True:
            try:
                inner, outer = await asyncio.open_connection("127.0.0.1", self.behind)
                break
            except OSError:
                await asyncio.sleep(0.1)
        await asyncio.gather(self.pass_on(reader, outer), self.pass_on(inner, writer))

    async def pass_on(self, reader, writer):
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def node(version, server, key):
    entry = await asyncio.to_thread(lambda: cocobase(version) / ENTRIES[version])
    process = await asyncio.create_subprocess_exec(
        *("node", "--no-warnings", "--experimental-websocket", "--import", str(HERE / "hook.mjs")),
        *(str(HERE / "driver.mjs"), str(entry), key),
        env={**os.environ, "REALTIME_TARGET": f"http://127.0.0.1:{server.port}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    sdk = Sdk(process)
    try:
        await sdk.hears("driver", "ready")
        yield sdk
    finally:
        process.kill()
        await process.communicate()


@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
@pytest.mark.parametrize("version", list(ENTRIES))
async def test_watch(serve, api_key, version, kind):
    server = await asyncio.to_thread(lambda: serve(kind, settings=LIMITS))
    async with node(version, server, api_key) as sdk:
        await sdk.do("watch", "w", "posts", {"status": "published", "views_gte": 3})
        connected = await sdk.hears("w", "connected")
        assert connected["filters"] == {"status": "published", "views_gte": 3}
        await Post.objects.acreate(title="draft", views=5)
        post = await Post.objects.acreate(title="one", status="published", views=5)
        frame = await sdk.hears("w", "create")
        assert frame["data"]["id"] == frame["document"]["id"] == str(post.pk)
        assert frame["document"]["data"]["title"] == "one"
        post.title = "two"
        await post.asave()
        frame = await sdk.hears("w", "update")
        assert frame["document"]["data"]["title"] == "two"
        await post.adelete()
        assert (await sdk.hears("w", "delete"))["document"]["id"] == str(post_id(frame))
        assert sdk.waiting == []
        await sdk.do("unwatch", "w")
        await Post.objects.acreate(title="late", status="published", views=5)
        await sdk.nothing(1.5)


def post_id(frame):
    return frame["data"]["id"]


@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
@pytest.mark.parametrize("version", list(ENTRIES))
async def test_broadcast_and_rooms(serve, api_key, version, kind):
    server = await asyncio.to_thread(lambda: serve(kind, settings=LIMITS))
    async with node(version, server, api_key) as sdk:
        await sdk.do("broadcast", "a", "1", "Ann")
        await sdk.do("broadcast", "b", "2", "Bob")
        async with asyncio.timeout(TIMEOUT):  # the SDK does not tell when it is connected
            while not any(each["name"] == "b" for each in sdk.waiting):
                await sdk.do("send", "a", {"hello": "all"})
                try:
                    sdk.waiting.append(
                        {"name": "b", "what": "seen", "data": await sdk.hears("b", "message", 0.3)}
                    )
                except TimeoutError:
                    continue
        frame = sdk.waiting.pop()["data"]
        assert (frame["user_id"], frame["user_name"], frame["data"]) == (
            "1",
            "Ann",
            {"hello": "all"},
        )
        assert (await sdk.hears("a", "message"))["data"] == {"hello": "all"}

        await sdk.do("room", "ann", "create", "lobby", "1", "Ann", "The Lobby")
        joined = await sdk.hears("ann", "joined")
        assert (joined["room_title"], joined["participants"]) == ("The Lobby", 1)
        await sdk.do("room", "bob", "join", "lobby", "2", "Bob")
        assert (await sdk.hears("bob", "joined"))["participants"] == 2
        frame = await sdk.hears("ann", "user_joined")
        assert (frame["user_name"], frame["room_info"]["participants"]) == ("Bob", 2)
        await sdk.do("say", "bob", "Hi!")
        for name in ("ann", "bob"):
            frame = await sdk.hears(name, "message")
            assert (frame["content"], frame["user_name"]) == ("Hi!", "Bob")
            assert frame["room_info"] == {"id": "lobby", "title": "The Lobby"}
        await sdk.do("list", "l")
        rooms = await sdk.hears("l", "rooms")
        assert rooms["total"] == 1
        assert rooms["rooms"][0]["participant_list"] == [
            {"id": "1", "name": "Ann"},
            {"id": "2", "name": "Bob"},
        ]
        await sdk.do("leave", "bob")
        frame = await sdk.hears("ann", "user_left")
        assert (frame["user_name"], frame["room_info"]["participants"]) == ("Bob", 1)
        await sdk.do("room", "lost", "join", "nowhere", "3", "Eve")
        assert (await sdk.hears("lost", "error"))["error"] == "Room not found"


@pytest.mark.timeout(200)
@pytest.mark.parametrize("kind", ["daphne", "uvicorn"])
async def test_reconnect_after_the_server_was_restarted(serve, api_key, kind):
    """1.6.0 only: 1.5.2 opens a socket again, but without the handlers that it had.

    Node 20's own WebSocket tells nobody when it is refused a connection, so that the SDK would
    wait for ever: a balancer stands in front, as it would in a deployment.
    """
    server = await asyncio.to_thread(lambda: serve(kind, settings=LIMITS))
    async with Balancer(server.port) as balancer, node("1.6.0", balancer, api_key) as sdk:
        await sdk.do("watch", "w", "posts", {"status": "published"})
        await sdk.do("room", "r", "create", "lobby", "1", "Ann", "T")
        await sdk.hears("w", "connected")
        await sdk.hears("r", "joined")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await sdk.hears("w", "reconnect", 40)
        await sdk.hears("w", "connected", 40)
        assert (await sdk.hears("r", "joined", 40))["room_title"] == "T"
        await Post.objects.acreate(title="after", status="published")
        assert (await sdk.hears("w", "create"))["document"]["data"]["title"] == "after"
        await sdk.do("say", "r", "still here")
        assert (await sdk.hears("r", "message"))["content"] == "still here"


@pytest.mark.timeout(200)
async def test_a_rejected_client_hears_why(serve, api_key):
    server = await asyncio.to_thread(lambda: serve("uvicorn", settings=LIMITS))
    async with node("1.6.0", server, "crk_12345678_wrong") as sdk:
        await sdk.do("room", "r", "create", "lobby", "1", "Ann", "T")
        for _ in range(2):  # it comes again, and again
            frame = await sdk.hears("r", "error")
            assert (frame["error"], frame["error_detail"]) == (
                "Invalid API key",
                "Project not found",
            )
        await sdk.do("list", "l")
        assert "valid key" in await sdk.hears("l", "failed")


FLOW = """(key) => {
  document.body.innerHTML = '<ul id="heard"></ul>';
  const db = new CocobaseSDK.Cocobase({apiKey: key});
  const tell = (text) => {
    const item = document.createElement("li");
    item.textContent = text;
    document.getElementById("heard").append(item);
  };
  const watcher = db.realtime.collection("posts", {status: "published"});
  watcher.onConnected(() => tell("watching"));
  watcher.onCreate(({document}) => tell("created " + document.data.title));
  watcher.connect();
  const room = db.realtime.room("lobby", "1", "Ann");
  room.on("joined", () => { tell("joined"); room.sendMessage("hello"); });
  room.on("message", (frame) => tell(frame.user_name + ": " + frame.content));
  room.create("The Lobby");
  db.realtime.listRooms().then(({total}) => tell("rooms listed: " + typeof total));
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
async def test_in_a_browser(serve, transactional_db):
    from playwright.async_api import async_playwright, expect

    require_chromium()
    server = await asyncio.to_thread(lambda: serve("daphne", settings=LIMITS))
    _, key = await sync_to_async(ApiKey.objects.create_key)("browser")
    script = await asyncio.to_thread(
        lambda: (cocobase("1.6.0") / "dist" / "browser" / "cocobase.min.js").read_text()
    )
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = await browser.new_page()
        await page.add_init_script(REWRITE)
        # a page that the server itself serves: Chromium keeps others from local servers
        await page.goto(f"http://127.0.0.1:{server.port}/realtime/health")
        await page.add_script_tag(content=script)
        await page.evaluate(FLOW, key)
        heard = page.locator("#heard")
        for text in ("watching", "joined", "Ann: hello", "rooms listed: number"):
            await expect(heard.get_by_text(text, exact=True)).to_be_visible(timeout=20_000)
        await Post.objects.acreate(title="from Django", status="published")
        created = heard.get_by_text("created from Django")
        await expect(created).to_be_visible(timeout=20_000)
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        await expect(heard.get_by_text("watching", exact=True)).to_have_count(2, timeout=40_000)
        await expect(heard.get_by_text("Ann: hello")).to_have_count(2, timeout=40_000)
        await browser.close()

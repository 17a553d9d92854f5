"""The published clients: one small module for browsers and npm, a Python client without Django."""

import gzip
import json
import math
import re
import shutil
import subprocess
import sys
import tarfile

import pytest

import django_cocobase_realtime
from tests.clients.drivers import STATIC
from tests.support.node import require_node
from tests.support.npm import install_packages
from tests.support.servers import ROOT

SCRIPT = STATIC / "realtime.js"
MAX_KIB = 13  # of the file as it is served, with its comments
MAX_MINIFIED_KIB = 8


def kib(content):
    return len(gzip.compress(content, 9)) / 1024


def compressed_kib():
    return kib(SCRIPT.read_bytes())


def test_javascript_module_is_at_most_13_kib_compressed():
    assert compressed_kib() <= MAX_KIB


def test_javascript_module_is_at_most_8_kib_compressed_by_a_bundler():
    folder = install_packages({"esbuild": "0.25.10"}, required_by="REQUIRE_SERVERS")
    esbuild = folder / "esbuild" / "bin" / "esbuild"
    command = [str(esbuild), "--minify", "--format=esm", str(SCRIPT)]
    minified = subprocess.run(command, capture_output=True, check=True).stdout
    assert kib(minified) <= MAX_MINIFIED_KIB


@pytest.mark.parametrize(
    ("page", "pattern"),
    [
        ("docs/how-to/javascript.md", r"one ES module without dependencies, (\d+) KiB compressed"),
        ("docs/explanation/performance.md", r"A test limits it to (\d+) KiB compressed"),
    ],
)
def test_documented_size_is_the_measured_one(page, pattern):
    (kib,) = re.findall(pattern, (ROOT / page).read_text())
    assert int(kib) == (MAX_KIB if "limits" in pattern else math.ceil(compressed_kib()))


def test_javascript_module_has_no_imports():
    lines = SCRIPT.read_text().splitlines()
    assert not [line for line in lines if line.startswith(("import ", "export {", "export *"))]


def test_npm_and_python_packages_have_the_same_version():
    package = json.loads((ROOT / "package.json").read_text())
    assert package["version"] == django_cocobase_realtime.__version__


def node(*arguments, **options):
    require_node(arguments[0])
    return subprocess.run(arguments, check=True, capture_output=True, text=True, **options).stdout


def test_npm_package_contains_and_exports_the_client(tmp_path):
    # the packed tarball is unpacked and imported as a user of npm would
    packed = json.loads(
        node("npm", "pack", "--json", "--pack-destination", str(tmp_path), cwd=ROOT)
    )[0]
    names = {file["path"].rsplit("/", 1)[-1] for file in packed["files"]}
    assert names == {"realtime.js", "realtime.d.ts", "package.json", "README.md", "LICENSE"}
    home = tmp_path / "node_modules" / "django-cocobase-realtime"
    home.mkdir(parents=True)
    safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # since 3.11.4
    with tarfile.open(tmp_path / packed["filename"]) as archive:
        archive.extractall(tmp_path, **safely)
    shutil.copytree(tmp_path / "package", home, dirs_exist_ok=True)
    script = tmp_path / "app.mjs"
    script.write_text(
        'import { Realtime, RealtimeError } from "django-cocobase-realtime";'
        "console.log(new Realtime({ url: 'wss://example.com' }).status, RealtimeError.name);"
    )
    assert node("node", str(script)) == "idle RealtimeError\n"


STORE = """
import { Realtime } from %s;
import assert from "node:assert";
class Socket {
  constructor() { sockets.push(this); setTimeout(() => this.onopen()); }
  send(text) { this.sent = JSON.parse(text); }
  close() {}
  receive(frame) { this.onmessage({ data: JSON.stringify(frame) }); }
}
const sockets = [];
const tick = () => new Promise((resolve) => setTimeout(resolve, 5));
const db = new Realtime({ url: "http://example.com/realtime", WebSocket: Socket });
assert.equal(sockets.length, 0); // no connection before the first use
const store = db.live("posts");
await tick();
const [socket] = sockets;
assert.equal(db.url, "ws://example.com/realtime");
const { subscribe, getSnapshot } = store; // as React calls them: without their object
const seen = [];
const stop = subscribe((documents) => seen.push(documents));
subscribe(() => { throw new Error("listener failed"); });
const stopTwin = subscribe(seen.push.bind(seen));
stopTwin();
assert.deepEqual(seen[0], []); // called immediately, as Svelte requires
assert.equal(getSnapshot(), getSnapshot());
const { id } = socket.sent;
socket.receive({ type: "authenticated", id, user: null, heartbeat: 25 });
const name = socket.sent.subscription;
socket.receive({ type: "subscribed", id: socket.sent.id, subscription: name, cursor: "c0" });
const one = { id: "1", data: { n: 1, deep: { a: [1] } } };
const page = { type: "snapshot", subscription: name, more: false };
socket.receive({ ...page, documents: [one, { id: "2", data: { n: 2 } }] });
const before = getSnapshot();
assert.equal(seen.at(-1), before);
assert.equal(store.documents, before);
socket.receive({ type: "event", event: "updated", subscriptions: [name],
  document: { id: "2", data: { n: 3 } } });
const after = getSnapshot();
assert.notEqual(after, before); // a new array,
assert.equal(after[0], before[0]); // in which unchanged documents are the same objects
const changes = seen.length;
socket.receive({ type: "event", event: "deleted", subscriptions: [name], document: { id: "9" } });
assert.equal(seen.length, changes); // nothing changed: no call
stop();
socket.receive({ type: "event", event: "deleted", subscriptions: [name], document: { id: "1" } });
assert.equal(seen.length, changes);
assert.deepEqual(store.documents.map((each) => each.id), ["2"]);
const count = db.count("posts", { groupBy: "n" });
await tick();
const values = [];
(0, count.subscribe)((groups) => values.push([groups === count.getSnapshot(), count.value]));
const { subscription } = socket.sent;
socket.receive({ type: "subscribed", id: socket.sent.id, subscription });
const groups = [{ key: { n: 1 }, count: 2 }, { key: { n: null }, count: 3 }];
const frame = { type: "aggregate", subscription, groups, cursor: "c1" };
socket.receive({ ...frame, reset: true });
const [first] = count.groups;
socket.receive({ ...frame, groups: [{ key: { n: null }, count: 4 }] });
assert.deepEqual(values, [[true, null], [true, 5], [true, 6]]);
assert.equal(count.groups[0], first);
assert.throws(() => { first.key.n = 7; });
socket.receive({ ...frame, reset: true, groups: [groups[0], { key: { n: null }, count: 4 }] });
assert.equal(values.length, 3); // nothing changed: no call
count.stop();
const idle = new Realtime({ WebSocket: Socket });
await assert.rejects(idle.request({ type: "x" }), { code: "closed" });
db.close();
console.log("done");
"""


def test_live_store_follows_the_contracts_of_svelte_and_react(tmp_path):
    script = tmp_path / "store.mjs"
    script.write_text(STORE % json.dumps(SCRIPT.as_uri()))
    assert node("node", str(script), cwd=tmp_path) == "done\n"


CLIENT_WITHOUT_DJANGO = """
import sys
class BlockImports:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("django", "channels", "asgiref", "msgspec", "redis", "jwt"):
            raise ImportError(name)
sys.meta_path.insert(0, BlockImports())
import asyncio
from django_cocobase_realtime.client import Realtime, RealtimeError
async def main():
    try:
        async with Realtime(sys.argv[1], token="key", proxy=None) as db:
            async for event in db.watch("posts", status="published", views__gte=3):
                print(event.event, event.id, event.data["title"])
                break
            await db.close()
    except RealtimeError as error:
        print(error.code)
asyncio.run(main())
assert "django" not in sys.modules
"""


async def test_python_client_works_without_django(tmp_path):
    import asyncio

    from tests.clients.scripted_server import ScriptedServer, change_event

    async with ScriptedServer() as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", CLIENT_WITHOUT_DJANGO, server.url),
            cwd=ROOT,
            env={"PATH": ""},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        connection = await server.accept_authenticated()
        request = await connection.receive("subscribe")
        assert request["filters"] == {"status": "published", "views__gte": 3}
        await connection.reply_subscribed(request, cursor="c0")
        await connection.send(change_event(request, "created", "1", "c1", title="Hello"))
        out, errors = await process.communicate()
    assert (out, errors) == (b"created 1 Hello\n", b"")

"""Calls of the JavaScript client within its own listeners, which the driver cannot make."""

import json

from tests.clients.test_packaging import SCRIPT, node

PROGRAM = """
import { Realtime } from %s;
import assert from "node:assert";
const sockets = [];
class Socket {
  constructor() { this.sent = []; sockets.push(this); setTimeout(() => this.onopen()); }
  send(text) { this.sent.push(JSON.parse(text)); }
  close() {}
  receive(frame) { this.onmessage({ data: JSON.stringify(frame) }); }
  reply(type, fields) { this.receive({ type, id: this.sent.at(-1).id, ...fields }); }
}
const tick = () => new Promise((resolve) => setTimeout(resolve, 5));
const create = () => new Realtime({ url: "http://example.com/realtime", WebSocket: Socket });
const hello = { user: { id: "7" }, project: "p", heartbeat: 25 };
const accept = async () => {
  await tick();
  sockets.at(-1).reply("authenticated", hello);
  await tick();
  return sockets.at(-1);
};

{ // a listener that closes the client at its first use
  const db = create();
  db.on("status", ({ status }) => status === "connecting" && db.close());
  assert.throws(() => db.watchCollection("posts", () => {}), { code: "closed" });
}
{ // a listener of members that connects while they are removed by a final refusal, and by `close`
  for (const end of [(db, socket) => socket.onclose({ code: 4500 }), (db) => db.close()]) {
    const db = create();
    db.on("error", () => {});
    const rooms = [db.room("a"), db.room("b")];
    let socket = await accept();
    for (const { id, room } of socket.sent.slice(1))
      socket.receive({ type: "joined", id, room, members: [{ id: "7" }], participants: 1 });
    for (const room of rooms) room.subscribe((members) => members.length || db.connect());
    end(db, socket);
    socket = await accept();
    assert.equal(db.status, "live");
    for (const { id, room } of socket.sent.slice(1))
      socket.receive({ type: "joined", id, room, members: [{ id: "7" }], participants: 1 });
    await Promise.all(rooms.map((room) => room.ready));
    rooms.forEach((room) => assert.equal(room.members.length, 1));
  }
}
{ // a listener of errors that removes itself has received the error
  const db = create();
  db.connect();
  const socket = await accept();
  const { error } = console;
  const lines = [];
  console.error = (line) => lines.push(line);
  const stop = db.on("error", () => stop());
  socket.receive({ type: "error", code: "x" });
  console.error = error;
  assert.deepEqual(lines, []);
}
{ // a listener that stops its watch, or closes the client, in the middle of a move
  for (const end of [(db, stop) => stop(), (db) => db.close()]) {
    const db = create();
    const seen = [];
    const stop = db.watchCollection("posts", ({ event, document }) => {
      seen.push([event, document.id]);
      if (seen.length === 2) end(db, stop);
    }, { transitions: true });
    const socket = await accept();
    const { subscription } = socket.sent.at(-1);
    socket.reply("subscribed", { cursor: "0", scope: "s" });
    const entered = [{ id: "2", data: {} }, { id: "3", data: {} }];
    socket.receive({ type: "moved", subscription, left: ["1"], entered, cursor: "1", scope: "t" });
    assert.deepEqual(seen, [["left", "1"], ["entered", "2"]]);
  }
}
{ // a change of a list with 10,000 documents takes milliseconds
  const db = create();
  const list = db.live("posts", { order: "n" });
  const socket = await accept();
  const { subscription } = socket.sent.at(-1);
  socket.reply("subscribed", { kinds: { n: "number", id: "number" } });
  const documents = Array.from({ length: 10000 }, (_, i) => ({
    id: `${i}`,
    data: { n: (i * 7919) %% 10000 },
  }));
  socket.receive({ type: "snapshot", subscription, documents });
  const began = performance.now();
  for (let n = 0; n < 20; n++)
    socket.receive({ type: "event", event: "updated", subscriptions: [subscription],
      document: { id: "5", data: { n: n * 500 } } });
  const each = (performance.now() - began) / 20;
  assert.equal(list.documents.length, 10000);
  assert.ok(each < 60, `${each} ms per change`);
}
console.log("done");
process.exit();
"""


def test_calls_within_listeners_and_long_lists(tmp_path):
    script = tmp_path / "program.mjs"
    script.write_text(PROGRAM % json.dumps(SCRIPT.as_uri()))
    assert node("node", str(script), cwd=tmp_path) == "done\n"

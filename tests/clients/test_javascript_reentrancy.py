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
{ // a change of 10,000 documents takes milliseconds, in a list and in a window
  for (const options of [{}, { order: "n" }]) {
    const db = create();
    const list = db.live("posts", options);
    const socket = await accept();
    const { subscription } = socket.sent.at(-1);
    socket.reply("subscribed", {});
    const documents = Array.from({ length: 10000 }, (_, i) => ({ id: `${i}`, data: { n: i } }));
    if (options.order) {
      const insert = documents.map((document, i) => [i, document]);
      const window = { type: "window", subscription, reset: true, remove: [], insert };
      socket.receive({ ...window, cursor: "0" });
    } else socket.receive({ type: "snapshot", subscription, documents });
    const began = performance.now();
    for (let n = 1; n <= 20; n++) {
      const document = { id: "5", data: { n: -n } };
      const event = { type: "event", event: "updated", subscriptions: [subscription], document };
      const window = { type: "window", subscription, remove: ["5"], insert: [[0, document]] };
      socket.receive(options.order ? { ...window, cursor: `${n}` } : event);
    }
    const each = (performance.now() - began) / 20;
    assert.equal(list.documents.length, 10000);
    assert.equal(list.documents[options.order ? 0 : 5].data.n, -20);
    assert.ok(each < 60, `${each} ms per change`);
  }
}
{ // a reader that stops another list, which has changed in the same frame
  const db = create();
  const lists = [db.live("posts", { limit: 5 }), db.live("posts", { limit: 5 })];
  const socket = await accept();
  const events = socket.sent.slice(-2).map(({ id, subscription }) => {
    socket.receive({ type: "subscribed", id });
    const insert = [[0, { id: "1", data: {} }]];
    return { type: "window", subscription, reset: true, remove: [], insert, cursor: "1" };
  });
  const calls = [];
  lists[1].subscribe(() => calls.push(lists[1].documents.length));
  lists[0].subscribe(({ length }) => length && lists[1].stop());
  socket.receive({ type: "events", events });
  assert.deepEqual([lists[0].documents.length, calls], [1, [0]]);
}
console.log("done");
process.exit();
"""


def test_calls_within_listeners_and_long_lists(tmp_path):
    script = tmp_path / "program.mjs"
    script.write_text(PROGRAM % json.dumps(SCRIPT.as_uri()))
    assert node("node", str(script), cwd=tmp_path) == "done\n"

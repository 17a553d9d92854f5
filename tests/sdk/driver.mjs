// Drives the SDK: reads commands from stdin, one JSON array per line, and writes events to stdout.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { Cocobase } = await import(pathToFileURL(process.argv[2]).href);
const db = new Cocobase({ apiKey: process.argv[3], projectId: "default" });
const objects = {};
const report = (name, kind, data) => console.log(JSON.stringify({ name, kind, data }));

const commands = {
  watch(name, collection, filters) {
    const watcher = (objects[name] = db.realtime.collection(collection, filters));
    watcher.onConnected((data) => report(name, "connected", data));
    for (const kind of ["Create", "Update", "Delete"]) {
      watcher[`on${kind}`]((data) => report(name, kind.toLowerCase(), data));
    }
    watcher.onReconnect?.(() => report(name, "reconnect"));
    watcher.connect();
  },
  unwatch(name) {
    objects[name].disconnect();
  },
  broadcast(name, id, shown) {
    const socket = (objects[name] = db.realtime.broadcast(id, shown));
    socket.onMessage((data) => report(name, "message", data));
    socket.connect();
  },
  send(name, data) {
    objects[name].send(data);
  },
  room(name, action, room, id, shown, title) {
    const chat = (objects[name] = db.realtime.room(room, id, shown));
    for (const kind of ["joined", "user_joined", "user_left", "message", "error", "undefined"]) {
      chat.on(kind, (data) => report(name, kind, data));
    }
    chat[action](title);
  },
  sendMessage(name, content) {
    objects[name].sendMessage(content);
  },
  leave(name) {
    objects[name].leave();
  },
  async list(name) {
    try {
      report(name, "rooms", await db.realtime.listRooms());
    } catch (error) {
      report(name, "failed", String(error));
    }
  },
};
report("driver", "ready");
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...rest] = JSON.parse(line);
  await commands[command](...rest);
}
process.exit(0);

// Drives the SDK by commands on stdin, one JSON array a line; tells what it hears on stdout.
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { Cocobase } = await import(pathToFileURL(process.argv[2]).href);
const db = new Cocobase({ apiKey: process.argv[3], projectId: "default" });
const held = {};
const tell = (name, what, data) => console.log(JSON.stringify({ name, what, data }));

const commands = {
  watch(name, collection, filters) {
    const watcher = (held[name] = db.realtime.collection(collection, filters));
    watcher.onConnected((data) => tell(name, "connected", data));
    for (const what of ["Create", "Update", "Delete"]) {
      watcher[`on${what}`]((data) => tell(name, what.toLowerCase(), data));
    }
    watcher.onReconnect?.(() => tell(name, "reconnect"));
    watcher.connect();
  },
  unwatch(name) {
    held[name].disconnect();
  },
  broadcast(name, id, shown) {
    const socket = (held[name] = db.realtime.broadcast(id, shown));
    socket.onMessage((data) => tell(name, "message", data));
    socket.connect();
  },
  send(name, data) {
    held[name].send(data);
  },
  room(name, action, room, id, shown, title) {
    const chat = (held[name] = db.realtime.room(room, id, shown));
    for (const what of ["joined", "user_joined", "user_left", "message", "error", "undefined"]) {
      chat.on(what, (data) => tell(name, what, data));
    }
    chat[action](title);
  },
  say(name, content) {
    held[name].sendMessage(content);
  },
  leave(name) {
    held[name].leave();
  },
  async list(name) {
    try {
      tell(name, "rooms", await db.realtime.listRooms());
    } catch (error) {
      tell(name, "failed", String(error));
    }
  },
};
tell("driver", "ready");
for await (const line of createInterface({ input: process.stdin })) {
  const [command, ...rest] = JSON.parse(line);
  await commands[command](...rest);
}
process.exit(0);

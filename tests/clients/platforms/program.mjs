// A program that uses the JavaScript client in Node. It writes what happens as lines of JSON.
// Signals are its commands, because their listeners keep no process alive.

const { client, ws, url } = JSON.parse(process.argv[2]);
const { Realtime } = await import(client);
const report = (source, kind, fields) => console.log(JSON.stringify({ source, kind, ...fields }));

Math.random = () => 0.02; // short delays between connections
const WebSocket = ws ? (await import(ws)).default : undefined;
const db = new Realtime({ url, token: "key", timeout: 1000, WebSocket });
db.on("status", ({ status, code }) => report("db", "status", { status, code }));
db.on("error", ({ code, message }) => report("db", "error", { code, message }));
db.connect(); // without a page, no list or room does that

const posts = db.live("posts", { order: "n" });
posts.subscribe((documents) => report("posts", "documents", { ids: documents.map(({ id }) => id) }));
db.watchCollection("secrets", () => {}); // its outcome is not awaited
const room = db.room("news");
room.on("message", ({ message }) => report("room", "message", { message }));

process.on("SIGUSR2", () => db.close());
process.on("exit", (code) => report("program", "exit", { code }));
report("program", "started", { WebSocket: typeof globalThis.WebSocket });

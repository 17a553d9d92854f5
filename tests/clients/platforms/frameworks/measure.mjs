// Renders the components on a server, and reports what that leaves behind.

const started = { sockets: 0, timers: 0 };
globalThis.WebSocket = class {
  constructor() {
    started.sockets++;
  }
};
for (const name of ["setTimeout", "setInterval", "setImmediate"]) {
  const original = globalThis[name];
  globalThis[name] = (...values) => {
    if (new Error().stack.includes("/realtime.js")) started.timers++;
    return original(...values);
  };
}

const { render, db } = await import("./server.mjs");

async function measureHeap(renders) {
  for (let index = 0; index < renders; index++) await render();
  await new Promise((resolve) => setTimeout(resolve, 20));
  gc();
  return process.memoryUsage().heapUsed;
}

const html = await render();
const before = await measureHeap(500);
const growth = (await measureHeap(1000)) - before;
await new Promise((resolve) => setTimeout(resolve, 50));
const resources = process.getActiveResourcesInfo().filter((name) => !/^(TTY|Pipe|FS)/.test(name));
console.log(JSON.stringify({ html, growth, resources, status: db.status, ...started }));

// Runs the JavaScript client in virtual time. Reads lines of commands, and answers each with a
// line of reports; see javascript_client.py.

import { createInterface } from "node:readline";

const EPOCH = 1.8e12;
const immediate = setImmediate;
const write = process.stdout.write.bind(process.stdout);
let reports = [];
let interrupted = false;

function report(kind, fields) {
  reports.push({ kind, at: clock.now / 1000, ...fields });
  if (["connect", "out", "hangup", "token"].includes(kind)) interrupted = true;
}

class Clock {
  now = 0; // ms
  timers = new Map();
  #last = 0;

  add(repeat, fn, delay, args) {
    delay = delay >= 1 && delay < 2 ** 31 ? +delay : 1; // as in Node
    const id = ++this.#last;
    this.timers.set(id, { id, fn, args, at: this.now + delay, every: repeat && delay });
    return id;
  }

  install() {
    globalThis.setTimeout = (fn, delay, ...args) => this.add(false, fn, delay, args);
    globalThis.setInterval = (fn, delay, ...args) => this.add(true, fn, delay, args);
    globalThis.clearTimeout = globalThis.clearInterval = (id) => void this.timers.delete(id);
    Date.now = () => Math.floor(EPOCH + this.now);
    performance.now = () => this.now;
  }

  #first() {
    let first;
    for (const timer of this.timers.values()) if (!first || timer.at < first.at) first = timer;
    return first;
  }

  // Run everything that is due, until the client sends something.
  async run(until) {
    for (;;) {
      await new Promise((resolve) => immediate(resolve));
      if (interrupted) return;
      const timer = this.#first();
      if (!timer || timer.at > until) return void (this.now = Math.max(this.now, until));
      this.now = Math.max(this.now, timer.at);
      if (timer.every) timer.at += timer.every;
      else this.timers.delete(timer.id);
      try {
        timer.fn(...timer.args);
      } catch (error) {
        report("log", { text: `uncaught in a timer: ${error.stack}` });
      }
    }
  }
}

const clock = new Clock();

class Socket {
  static all = [];
  readyState = 0;

  constructor(url) {
    this.number = Socket.all.push(this) - 1;
    report("connect", { socket: this.number, url });
  }
  send(text) {
    if (this.readyState === 0) throw new Error("InvalidStateError");
    if (this.readyState === 1) report("out", { socket: this.number, frame: JSON.parse(text) });
  }
  close(code) {
    if (this.readyState > 1) return;
    this.readyState = 2;
    report("hangup", { socket: this.number });
  }
  end(code, reason) {
    if (this.readyState === 3) return;
    const opened = this.readyState !== 0;
    this.readyState = 3;
    if (!opened) this.onerror?.({ type: "error", message: "refused" });
    this.onclose?.({ type: "close", code, reason, wasClean: code !== 1006 });
  }
}
Object.assign(Socket, { CONNECTING: 0, OPEN: 1, CLOSING: 2, CLOSED: 3 });

const codeOf = (error) => error?.code ?? `${error?.name}: ${error?.message}`;

// Commands have the names of Python.
function toOptions({ is_count, group_by, ...options }) {
  return group_by === undefined ? options : { ...options, groupBy: group_by };
}

const keyOf = ({ id, key }) => id ?? JSON.stringify(key ?? null);

function contentOf(store) {
  if (store.documents) {
    const documents = store.documents.map((each) => [each.id, each.data]);
    return { documents, more: store.hasMore, next: store.next };
  }
  const by = (a, b) => (keyOf(a) < keyOf(b) ? -1 : 1);
  return { value: store.value, groups: [...store.groups].sort(by) };
}

function mistake() {
  report("thrown");
  throw new Error("a mistake of the program");
}

class Program {
  #objects = {};
  #tokens = new Map();
  #tokenCount = 0;

  constructor(Realtime, { url, tokens, timeout }) {
    const token = tokens ? () => this.#askToken() : "key";
    const db = (this.db = new Realtime({ url, token, timeout: timeout * 1000, WebSocket: Socket }));
    db.on("status", ({ status, delay, code }) =>
      report("status", { status, code, delay: delay === undefined ? undefined : delay / 1000, user: db.user?.id ?? null }));
    db.on("error", ({ code, source }) => report("error", { code: String(code), source }));
    db.on("message", ({ message }) => report("direct", { message }));
  }

  #askToken() {
    const call = ++this.#tokenCount;
    report("token", { token: call });
    return new Promise((resolve, reject) => this.#tokens.set(call, { resolve, reject }));
  }
  token({ token, error }) {
    const { resolve, reject } = this.#tokens.get(token);
    error ? reject(new Error(error)) : resolve("token");
  }

  // the program
  #settle(call, promise) {
    Promise.resolve(promise).then(
      () => report("settled", { call, error: null }),
      (error) => report("settled", { call, error: String(codeOf(error)) }),
    );
  }
  connect() {
    this.db.connect();
  }
  close() {
    this.db.close();
  }
  live({ id, call, collection, options, throws }) {
    const onError = (error) => report("refused", { id, code: String(error.code), source: error.source });
    const isCount = options.is_count;
    const store = this.db[isCount ? "count" : "live"](collection, { ...toOptions(options), onError });
    this.#objects[id] = store;
    let previous = new Map();
    store.subscribe((values) => {
      const { next, ...shown } = contentOf(store);
      report("shown", { id, shown, user: this.db.user?.id ?? null });
      for (const value of values) {
        const old = previous.get(keyOf(value));
        if (old !== value && JSON.stringify(old) === JSON.stringify(value))
          report("raised", { text: `${JSON.stringify(value)} is equal, and another object` });
      }
      previous = new Map(values.map((value) => [keyOf(value), value]));
      if (throws) mistake();
    });
    this.#settle(call, store.ready);
  }
  count(command) {
    this.live(command);
  }
  watch({ id, call, collection, options, throws }) {
    const onError = (error) => report("refused", { id, code: String(error.code), source: error.source });
    const stop = (this.#objects[id] = this.db.watchCollection(collection, ({ event, document, cursor }) => {
      report("event", { id, event, document: document.id, cursor });
      if (throws) mistake();
    }, { ...options, onError, onResync: (reason) => report("resync", { id, reason }) }));
    this.#settle(call, stop.ready);
  }
  update({ id, call, options }) {
    this.#settle(call, this.#objects[id].update(toOptions(options)));
  }
  more({ id, call, n }) {
    this.#settle(call, this.#objects[id].more(n));
  }
  ready({ id, call }) {
    this.#settle(call, this.#objects[id].ready);
  }
  stop({ id }) {
    const object = this.#objects[id];
    typeof object === "function" ? object() : object.stop();
  }
  room({ id, call, name, options, throws }) {
    const onError = (error) => report("refused", { id, code: String(error.code), source: error.source });
    const room = (this.#objects[id] = this.db.room(name, { ...options, onError }));
    room.on("message", ({ message }) => {
      report("message", { id, message });
      if (throws) mistake();
    });
    room.on("resync", (reason) => report("resync", { id, reason }));
    this.#settle(call, room.ready);
  }
  broadcast({ id, call, message }) {
    this.#settle(call, this.#objects[id].broadcast(message));
  }
  state({ id, call, state }) {
    this.#settle(call, this.#objects[id].setState(state));
  }
  leave({ id }) {
    this.#objects[id].leave();
  }
  inspect() {
    const objects = {};
    for (const [id, object] of Object.entries(this.#objects)) {
      if (object.documents || object.groups) objects[id] = contentOf(object);
      else if (object.members) objects[id] = object.members;
    }
    report("inspect", { objects, status: this.db.status, user: this.db.user?.id ?? null, timers: clock.timers.size });
  }

  // the network
  open({ socket }) {
    Socket.all[socket].readyState = 1;
    Socket.all[socket].onopen?.({ type: "open" });
  }
  frame({ socket, text }) {
    if (Socket.all[socket].readyState < 2) Socket.all[socket].onmessage?.({ type: "message", data: text });
  }
  end({ socket, code }) {
    Socket.all[socket].end(code, "");
  }
}

function seedRandom(state) {
  Math.random = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

for (const name of ["error", "warn"])
  console[name] = (...values) => report("log", { text: values.map((each) => each?.stack ?? String(each)).join(" ") });
process.on("unhandledRejection", (error) => report("log", { text: `unhandled: ${error?.stack ?? error}` }));
process.on("uncaughtException", (error) => report("log", { text: `uncaught: ${error?.stack ?? error}` }));

const { Realtime } = await import(process.argv[2]);
clock.install();
let program;

async function handle({ commands, until }) {
  for (const { op, ...rest } of commands) {
    if (op === "create") {
      clock.timers.clear();
      clock.now = 0;
      Socket.all = [];
      seedRandom(rest.seed);
      program = new Program(Realtime, rest);
      continue;
    }
    try {
      program[op](rest);
    } catch (error) {
      const text = String(codeOf(error));
      if (rest.call) report("settled", { call: rest.call, error: text });
      else report("raised", { op, text });
    }
    await null; // a command is an event of its own
  }
  await clock.run(until * 1000);
  write(JSON.stringify({ now: clock.now / 1000, reports }) + "\n");
  reports = [];
  interrupted = false;
}

for await (const line of createInterface({ input: process.stdin })) await handle(JSON.parse(line));

// Drives the JavaScript client: reads commands and reports what the client does. See drivers.py.

// Values that commands cannot contain, because they are not JSON or too long.
const VALUES = {
  $surrogate: "Nice \ud83d",
  $nul: "a\0b",
  $nan: NaN,
  $big: 2 ** 60,
  $undefined: undefined,
  $long: "x".repeat(70000),
  $wide: "é".repeat(40000),
};

function resolve(value) {
  if (typeof value === "string" && Object.hasOwn(VALUES, value)) return VALUES[value];
  if (Array.isArray(value)) return value.map(resolve);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, resolve(each)]));
}

// Commands have the names of the protocol.
function camelCase({ group_by: groupBy, ...options }) {
  return groupBy === undefined ? options : { groupBy, ...options };
}

// Do after a report what a listener may do wrong: throw, reject, or change its argument.
function misbehave(behavior, value) {
  if (behavior === "throw") throw Error("listener");
  if (behavior === "reject") return Promise.reject(Error("listener"));
  if (behavior === "mutate") {
    for (const each of Array.isArray(value) ? value : [value]) {
      Object.assign(each.document?.data ?? {}, { n: "changed" });
      Object.assign(each.data ?? {}, { n: "changed" });
    }
    if (Array.isArray(value)) value.length = 0;
  }
}

export class Driver {
  #objects = {};
  #calls = {};
  #timers = new Map();
  #clockShift = 0;
  #page = new EventTarget();

  constructor(Realtime, report) {
    this.Realtime = Realtime;
    this.report = (source, kind, fields) => report({ source, kind, ...fields });
    const now = Date.now;
    Date.now = () => now() + this.#clockShift;
    this.#observeTimers();
    // Node has no page whose events wake the client
    globalThis.addEventListener ??= this.#page.addEventListener.bind(this.#page);
    globalThis.removeEventListener ??= this.#page.removeEventListener.bind(this.#page);
  }

  // Know the client's timers, so that `advance` can run them.
  #observeTimers() {
    const { setTimeout, clearTimeout } = globalThis;
    globalThis.setTimeout = (fn, delay = 0, ...values) => {
      const run = () => {
        this.#timers.delete(timer);
        fn(...values);
      };
      const timer = setTimeout(run, delay);
      this.#timers.set(timer, { run, due: Date.now() + delay });
      return timer;
    };
    globalThis.clearTimeout = (timer) => {
      this.#timers.delete(timer);
      clearTimeout(timer);
    };
  }

  do({ op, id, ...rest }) {
    try {
      this[op](id, resolve(rest));
    } catch ({ code, message }) {
      this.report(id ?? "db", "failed", { code, message, tag: rest.tag });
    }
  }

  // Run several commands at once.
  batch(_, { commands }) {
    commands.forEach((command) => this.do(command));
  }

  #reportError(id, { code, source, retryAfter }) {
    const fields = { code, origin: source, retry_after: retryAfter };
    this.report(id, "error", fields);
    this.report("errors", "error", fields);
  }

  create(_, { url, tokens, timeout, random = 0.01, options = {}, debug, on_live = [], behavior, error_behavior }) {
    Math.random = () => random;
    const next = () => (tokens.length > 1 ? tokens.shift() : tokens[0]);
    const token = Array.isArray(tokens)
      ? () => {
          const value = next();
          if (value === "$throw") throw Error("no token");
          if (value === "$reject") return Promise.reject(Error("no token"));
          return value === "$hang" ? new Promise(() => {}) : Promise.resolve(value);
        }
      : tokens;
    if (debug) options.debug = (...values) => this.report("debug", "line", { text: JSON.stringify(values) });
    const db = (this.db = new this.Realtime({ url, token, timeout, ...options }));
    db.on("status", ({ status, delay, code, user }) => {
      this.report("db", "status", { status, code, user, delay: delay === undefined ? undefined : delay / 1000 });
      if (status === "live") on_live.splice(0).forEach((command) => this.do(command));
      return misbehave(behavior);
    });
    db.on("error", (error) => {
      this.#reportError("db", error);
      return misbehave(error_behavior);
    });
    db.on("message", ({ message }) => this.report("db", "message", { message }));
    db.connect();
  }

  // Connect again after `close`.
  connect() {
    this.db.connect();
  }

  user() {
    this.report("db", "user", { user: this.db.user });
  }

  #reportOutcome(id, promise, kind = "ready", fields = {}) {
    promise.then(
      () => this.report(id, kind, fields),
      ({ code }) => this.report(id, "failed", { ...fields, code }),
    );
  }

  // Report when `ready` of something is settled, once more.
  ready(id) {
    this.#reportOutcome(id, this.#objects[id].ready);
  }

  // Report each event. After the report, `behavior` is what the handler does wrong. `on_error` and
  // `on_resync` are commands to run once in these handlers.
  watch(id, { collection, options = {}, behavior, on_error = [], on_resync = [] }) {
    const run = (commands) => commands.splice(0).forEach((command) => this.do(command));
    const stop = (this.#objects[id] = this.db.watchCollection(collection, (event) => {
      const { event: name, document, data, cursor, replayed = false } = event;
      this.report(id, "event", { event: name, id: document.id, data, cursor, replayed });
      return misbehave(behavior, event);
    }, {
      ...options,
      onSnapshot: (documents, truncated = false) =>
        this.report(id, "snapshot", { ids: documents.map((each) => each.id), truncated }),
      onResync: (reason) => {
        this.report(id, "resync", { reason });
        run(on_resync);
      },
      onError: (error) => {
        this.#reportError(id, error);
        run(on_error);
      },
    }));
    this.#reportOutcome(id, stop.ready);
  }

  // Subscribe to documents and unsubscribe at once, `count` times, as components of a page do.
  mount(id, { collection, count }) {
    for (let n = 0; n < count; n++) this.db.watchCollection(collection, () => {}, { filters: { n } })();
    this.report(id, "mounted");
  }

  // `on_error` are commands to run once when the list reports an error.
  live(id, { collection, options = {}, behavior, on_error = [] }) {
    const store = (this.#objects[id] = this.db.live(collection, {
      ...options,
      onError: (error) => {
        this.#reportError(id, error);
        on_error.splice(0).forEach((command) => this.do(command));
      },
    }));
    this.#reportOutcome(id, store.ready);
    this.subscribe(id, { live: id, behavior });
  }

  // Read the list `live` once more. `kept` are the ids of the documents that are the same objects
  // as in the last report. With the behavior "resubscribe", each call adds a reader.
  subscribe(id, { live, behavior }) {
    const store = this.#objects[live];
    let isSubscribing = false;
    let last = new Set();
    const read = (documents) => {
      if (documents !== store.documents || documents !== store.getSnapshot()) throw Error("different documents");
      this.report(id, "documents", {
        documents: documents.map((each) => [each.id, structuredClone(each.data)]),
        kept: documents.filter((each) => last.has(each)).map((each) => each.id),
        has_more: store.hasMore,
        next: store.next,
      });
      last = new Set(documents);
      const calls = (this.#calls[id] = (this.#calls[id] ?? 0) + 1);
      if (behavior === "resubscribe" && !isSubscribing && documents.length && calls < 200) {
        isSubscribing = true;
        store.subscribe(read);
        isSubscribing = false;
      }
      return misbehave(behavior, documents);
    };
    store.subscribe(read);
  }

  // Grow a list, by its first limit if `n` is undefined.
  more(id, { n }) {
    this.#reportOutcome(id, this.#objects[id].more(n), "more");
  }

  // Report each value of a count. `kept` is the number of groups that are the same objects as in
  // the last report.
  count(id, { collection, options = {} }) {
    const store = (this.#objects[id] = this.db.count(collection, {
      ...camelCase(options),
      onError: (error) => this.#reportError(id, error),
    }));
    this.#reportOutcome(id, store.ready);
    let last = new Set();
    store.subscribe((groups) => {
      if (groups !== store.groups || groups !== store.getSnapshot()) throw Error("different groups");
      const kept = groups.filter((each) => last.has(each)).length;
      const isNumber = (name, value) => (Number.isNaN(value) ? "NaN" : value); // JSON has null
      const shown = JSON.parse(JSON.stringify(groups, isNumber));
      this.report(id, "groups", { value: store.value, groups: shown, kept });
      last = new Set(groups);
    });
  }

  // Report how often the reader of a list was called.
  calls(id) {
    this.report(id, "calls", { calls: this.#calls[id] });
  }

  // A live list that is reported only by `show`.
  list(id, { collection, options = {} }) {
    const store = (this.#objects[id] = this.db.live(collection, options));
    this.#reportOutcome(id, store.ready);
  }

  // Create a count that is reported only by `show`.
  counts(id, { collection, options = {} }) {
    const store = (this.#objects[id] = this.db.count(collection, camelCase(options)));
    this.#reportOutcome(id, store.ready);
  }

  show(id) {
    const { documents, hasMore, groups, value } = this.#objects[id];
    if (groups) return this.report(id, "shown", { value, groups });
    const shown = documents.map((each) => [each.id, each.data]);
    this.report(id, "shown", { documents: shown, has_more: hasMore });
  }

  update(id, { options }) {
    this.#reportOutcome(id, this.#objects[id].update(camelCase(options)));
  }

  stop(id) {
    const object = this.#objects[id];
    typeof object === "function" ? object() : object.stop();
  }

  // With `late`, read the messages only after `ready`.
  room(id, { name, options = {}, late = false }) {
    const room = (this.#objects[id] = this.db.room(name, options));
    const read = () =>
      room.on("message", ({ message, replayed = false }) => this.report(id, "message", { message, replayed }));
    if (late) room.ready.then(read, () => {});
    else read();
    this.#reportOutcome(id, room.ready);
    room.on("resync", (reason) => this.report(id, "resync", { reason }));
    room.on("presence", ({ event, member }) =>
      this.report(id, "presence", { event, id: member.id, members: room.members.map((each) => each.id) }));
  }

  broadcast(id, { message, tag }) {
    this.#reportOutcome(id, this.#objects[id].broadcast(message), "sent", { tag });
  }

  state(id, { state }) {
    this.#reportOutcome(id, this.#objects[id].setState(state), "state", { state });
  }

  members(id) {
    const { members, participants, state } = this.#objects[id];
    this.report(id, "members", { members, participants, state });
  }

  leave(id) {
    this.#objects[id].leave();
  }

  request(id, { frame }) {
    this.#reportOutcome(id, this.db.request(frame), "reply");
  }

  // Call methods, and ignore the promises that they return.
  ignore(id, { calls }) {
    for (const [method, value] of calls) this.#objects[id][method](value);
  }

  // Simulate an event of the page, such as `online`.
  wake(_, { event }) {
    this.#page.dispatchEvent(new Event(event));
  }

  // Simulate a computer that slept: the clock has advanced, but no timer has run.
  sleep(_, { seconds }) {
    this.#clockShift += seconds * 1000;
  }

  // Simulate that time passes: the clock has advanced, and timers of half a minute or more have run.
  advance(_, { seconds }) {
    const before = Date.now();
    this.#clockShift += seconds * 1000;
    for (const [timer, { run, due }] of [...this.#timers]) {
      if (due - before < 30000 || due > Date.now()) continue;
      clearTimeout(timer);
      run();
    }
  }

  close() {
    this.db.close();
  }
}

if (globalThis.process) {
  const { createInterface } = await import("node:readline");
  const { Realtime } = await import(process.argv[2]);
  const driver = new Driver(Realtime, (report) => console.log(JSON.stringify(report)));
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => driver.do(JSON.parse(line)));
  lines.on("close", () => process.exit());
}

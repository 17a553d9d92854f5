// Drives the JavaScript client: reads commands and reports what the client does. See drivers.py.

export class Driver {
  #objects = {};
  #clockShift = 0;

  constructor(Realtime, report) {
    this.Realtime = Realtime;
    this.report = (source, kind, fields) => report({ source, kind, ...fields });
    const now = Date.now;
    Date.now = () => now() + this.#clockShift;
  }

  do({ op, id, ...rest }) {
    return this[op](id, rest);
  }

  create(_, { url, tokens, timeout, random = 0.01 }) {
    Math.random = () => random;
    const token = Array.isArray(tokens) ? async () => tokens.length > 1 ? tokens.shift() : tokens[0] : tokens;
    const db = (this.db = new this.Realtime({ url, token, timeout }));
    db.on("status", ({ status, delay, code }) =>
      this.report("db", "status", { status, code, delay: delay === undefined ? undefined : delay / 1000 }));
    db.on("error", (error) => this.report("db", "error", { code: error.code }));
    db.on("message", ({ message }) => this.report("db", "message", { message }));
    db.connect();
  }

  #reportOutcome(id, promise) {
    promise.then(() => this.report(id, "ready"), (error) => this.report(id, "failed", { code: error.code }));
  }

  watch(id, { collection, options = {} }) {
    const stop = (this.#objects[id] = this.db.watchCollection(collection, (event) => {
      const { event: name, document, data, cursor, replayed = false } = event;
      this.report(id, "event", { event: name, id: document.id, data, cursor, replayed });
    }, {
      ...options,
      onSnapshot: (documents, truncated = false) =>
        this.report(id, "snapshot", { ids: documents.map((each) => each.id), truncated }),
      onResync: (reason) => this.report(id, "resync", { reason }),
      onError: (error) => this.report(id, "error", { code: error.code }),
    }));
    this.#reportOutcome(id, stop.ready);
  }

  live(id, { collection, options = {} }) {
    const store = (this.#objects[id] = this.db.live(collection, {
      ...options,
      onError: (error) => this.report(id, "error", { code: error.code }),
    }));
    this.#reportOutcome(id, store.ready);
    store.subscribe((documents) => {
      if (documents !== store.documents || documents !== store.getSnapshot()) throw Error("different documents");
      this.report(id, "documents", { documents: documents.map((each) => [each.id, each.data]) });
    });
  }

  // A live list that is reported only by `show`.
  list(id, { collection, options = {} }) {
    const store = (this.#objects[id] = this.db.live(collection, options));
    this.#reportOutcome(id, store.ready);
  }

  show(id) {
    this.report(id, "shown", { documents: this.#objects[id].documents.map((each) => [each.id, each.data]) });
  }

  update(id, { options }) {
    this.#reportOutcome(id, this.#objects[id].update(options));
  }

  stop(id) {
    const object = this.#objects[id];
    typeof object === "function" ? object() : object.stop();
  }

  room(id, { name, options = {} }) {
    const room = (this.#objects[id] = this.db.room(name, options));
    this.#reportOutcome(id, room.ready);
    room.on("message", ({ message, replayed = false }) => this.report(id, "message", { message, replayed }));
    room.on("resync", (reason) => this.report(id, "resync", { reason }));
    room.on("presence", ({ event, member }) =>
      this.report(id, "presence", { event, id: member.id, members: room.members.map((each) => each.id) }));
  }

  broadcast(id, { message, tag }) {
    this.#objects[id].broadcast(message).then(
      () => this.report(id, "sent", { tag }),
      (error) => this.report(id, "failed", { tag, code: error.code }),
    );
  }

  async state(id, { state }) {
    await this.#objects[id].setState(state);
    this.report(id, "state", { state });
  }

  members(id) {
    const { members, participants } = this.#objects[id];
    this.report(id, "members", { members, participants });
  }

  leave(id) {
    this.#objects[id].leave();
  }

  // Simulate a computer that slept: the clock has advanced, but no timer has run.
  sleep(_, { seconds }) {
    this.#clockShift += seconds * 1000;
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

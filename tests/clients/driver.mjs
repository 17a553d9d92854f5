// Puts the JavaScript client through its paces: commands in, notes out, as drivers.py has them.

export class Driver {
  #held = {};
  #shift = 0;

  constructor(Realtime, tell) {
    this.Realtime = Realtime;
    this.tell = (who, what, note) => tell({ who, what, ...note });
    const now = Date.now;
    Date.now = () => now() + this.#shift;
  }

  do({ op, id, ...rest }) {
    return this[op](id, rest);
  }

  create(_, { url, tokens, timeout, luck = 0.01 }) {
    Math.random = () => luck;
    const token = Array.isArray(tokens) ? async () => tokens.length > 1 ? tokens.shift() : tokens[0] : tokens;
    const db = (this.db = new this.Realtime({ url, token, timeout }));
    db.on("status", ({ status, delay, code }) =>
      this.tell("db", "status", { status, code, delay: delay === undefined ? undefined : delay / 1000 }));
    db.on("error", (error) => this.tell("db", "error", { code: error.code }));
    db.on("message", ({ message }) => this.tell("db", "message", { message }));
    db.connect();
  }

  #settle(id, promise) {
    promise.then(() => this.tell(id, "ready"), (error) => this.tell(id, "failed", { code: error.code }));
  }

  watch(id, { collection, options = {} }) {
    const stop = (this.#held[id] = this.db.watchCollection(collection, (event) => {
      const { event: name, document, data, cursor, replayed = false } = event;
      this.tell(id, "event", { event: name, id: document.id, data, cursor, replayed });
    }, {
      ...options,
      onSnapshot: (documents, truncated = false) =>
        this.tell(id, "snapshot", { ids: documents.map((each) => each.id), truncated }),
      onResync: (reason) => this.tell(id, "resync", { reason }),
      onError: (error) => this.tell(id, "error", { code: error.code }),
    }));
    this.#settle(id, stop.ready);
  }

  live(id, { collection, options = {} }) {
    const store = (this.#held[id] = this.db.live(collection, {
      ...options,
      onError: (error) => this.tell(id, "error", { code: error.code }),
    }));
    this.#settle(id, store.ready);
    store.subscribe((documents) => {
      if (documents !== store.documents || documents !== store.getSnapshot()) throw Error("another");
      this.tell(id, "documents", { documents: documents.map((each) => [each.id, each.data]) });
    });
  }

  update(id, { options }) {
    this.#settle(id, this.#held[id].update(options));
  }

  stop(id) {
    const held = this.#held[id];
    typeof held === "function" ? held() : held.stop();
  }

  room(id, { name, options = {} }) {
    const room = (this.#held[id] = this.db.room(name, options));
    this.#settle(id, room.ready);
    room.on("message", ({ message, replayed = false }) => this.tell(id, "message", { message, replayed }));
    room.on("resync", (reason) => this.tell(id, "resync", { reason }));
    room.on("presence", ({ event, member }) =>
      this.tell(id, "presence", { event, id: member.id, members: room.members.map((each) => each.id) }));
  }

  broadcast(id, { message, tag }) {
    this.#held[id].broadcast(message).then(
      () => this.tell(id, "sent", { tag }),
      (error) => this.tell(id, "failed", { tag, code: error.code }),
    );
  }

  async state(id, { state }) {
    await this.#held[id].setState(state);
    this.tell(id, "state", { state });
  }

  members(id) {
    const { members, participants } = this.#held[id];
    this.tell(id, "members", { members, participants });
  }

  leave(id) {
    this.#held[id].leave();
  }

  // A laptop's lid: the clock has moved on, and no timer has run.
  sleep(_, { seconds }) {
    this.#shift += seconds * 1000;
  }

  close() {
    this.db.close();
  }
}

if (globalThis.process) {
  const { createInterface } = await import("node:readline");
  const { Realtime } = await import(process.argv[2]);
  const driver = new Driver(Realtime, (note) => console.log(JSON.stringify(note)));
  const lines = createInterface({ input: process.stdin });
  lines.on("line", (line) => driver.do(JSON.parse(line)));
  lines.on("close", () => process.exit());
}

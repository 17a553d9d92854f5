// The client of django-cocobase-realtime.

const SETTLED = 10000; // ms after which a connection is stable
const FORGOTTEN = 240000; // ms after which the server may forget a broadcast's key

export class RealtimeError extends Error {
  name = "RealtimeError";
  constructor({ code, message, retry_after_ms }) {
    super(message ?? `Closed by the server with ${code}.`);
    this.code = code;
    this.retryAfter = retry_after_ms;
  }
}

const CLOSED = { type: "error", code: "closed", message: "The connection was lost." };

function call(fn, ...values) {
  try {
    fn?.(...values);
  } catch (error) {
    console.error(error);
  }
}

class Emitter {
  #listeners = {};
  on(name, fn) {
    const listener = (value) => call(fn, value);
    const all = (this.#listeners[name] ??= new Set()).add(listener);
    return () => void all.delete(listener);
  }
  _emit(name, value) {
    this.#listeners[name]?.forEach((listener) => listener(value));
  }
  _fail(frame, handler) {
    const error = new RealtimeError(frame);
    if (handler) call(handler, error);
    else if (this.#listeners.error?.size) this._emit("error", error);
    else console.error(error);
    return error;
  }
  _failed(frame) {
    this._fail(frame);
  }
}

// A store for Svelte and React.
class Store extends Emitter {
  #value = [];
  subscribe = (fn) => {
    const stop = this.on("change", fn);
    call(fn, this.#value);
    return stop;
  };
  getSnapshot = () => this.#value;
  _set(value) {
    if (value.length === this.#value.length && value.every((x, i) => x === this.#value[i])) return;
    this._emit("change", (this.#value = value));
  }
}

// Return false for a duplicate frame.
function isNew({ cursor }, holder) {
  if (!cursor) return true;
  if (holder.seen.has(cursor)) return false;
  holder.seen.add((holder.cursor = cursor));
  if (holder.seen.size > 1000) holder.seen.delete(holder.seen.values().next().value);
  return true;
}

// A document without data was too large, or its serializer failed.
const whole = ({ id, data, error }) =>
  data ? { id, data } : { id, data: {}, [error ? "error" : "truncated"]: true };

const failed = ({ code }) => code === "internal_error";

const byId = (all) => new Map(all.map((each) => [each.id, each]));

function deferred() {
  const it = {};
  it.promise = new Promise((...settle) => ([it.resolve, it.reject] = settle));
  it.promise.catch(() => {});
  return it;
}

class Subscription {
  active = false; // on this connection
  cursor = null;
  seen = new Set();
  #next = null; // options that replace the others
  #pages = null; // documents of an incomplete snapshot

  constructor(db, name, collection, options, sink) {
    Object.assign(this, { db, name, collection, options, sink, ready: deferred() });
  }

  start() {
    if (this.db._subscriptions.get(this.name) !== this) return; // stopped
    const wanted = this.#next ?? this.options;
    const from = !this.#next && this.cursor && { since: this.cursor, scope: this.scope };
    const { name: subscription, collection } = this;
    const frame = { type: "subscribe", subscription, collection, ...wanted, ...from };
    this.db._ask(frame, (reply) => {
      if (reply.type === "error") this.#refused(reply, wanted);
      else this.#started(reply, wanted);
    });
  }

  update(options) {
    this.#next = { ...(this.#next ?? this.options), ...options };
    if (this.ready.done) this.ready = deferred();
    if (this.db._live) this.start();
    return this.ready.promise;
  }

  stop() {
    if (this.db._subscriptions.delete(this.name))
      this.db._ask({ type: "unsubscribe", subscription: this.name });
  }

  #started(reply, wanted) {
    this.active = true;
    this.tries = 0;
    this.options = wanted;
    this.reply = reply;
    this.scope = reply.scope;
    if (this.#next === wanted) this.#next = null;
    this.#pages = null;
    if (reply.resumed) return this.#done();
    this.seen = new Set();
    // an incomplete snapshot starts again
    this.cursor = wanted.snapshot ? null : reply.cursor;
    if (reply.resync) call(this.sink.resync, reply.resync.reason);
    if (wanted.snapshot) this.#pages = [];
    else this.#done();
  }

  #refused(reply, wanted) {
    if (reply === CLOSED || !this.db._subscriptions.has(this.name)) return;
    const replacing = this.#next;
    if (replacing && replacing !== wanted) return;
    if (failed(reply) && !replacing) {
      this.ready = this.db._again(this, reply, this.ready, this.sink.error);
      return;
    }
    if (reply.retry_after_ms != null)
      return this.db._later(reply.retry_after_ms, () => this.start());
    const error = this.db._fail(reply, this.sink.error);
    this.ready.done = !this.ready.reject(error);
    if (replacing) {
      this.#next = null; // keep the old options
      if (!this.active) this.start();
    } else {
      this.db._subscriptions.delete(this.name);
      call(this.sink.snapshot, [], false, error);
    }
  }

  _failed(frame) {
    this.active = false;
    this.#refused(frame, this.options);
  }

  #done() {
    if (!this.#next) this.ready.done = !this.ready.resolve(this.reply);
  }

  event(frame) {
    if (isNew(frame, this)) call(this.sink.event, frame);
  }

  position({ cursor }) {
    if (!this.#pages) this.cursor = cursor;
  }

  snapshot({ documents, cursor, more, truncated }) {
    const pages = this.#pages;
    pages?.push(...documents);
    if (more || !pages) return;
    this.#pages = null;
    this.cursor = cursor;
    call(this.sink.snapshot, pages, truncated);
    this.#done();
  }
}

const WAKERS = ["online", "offline", "pageshow", "visibilitychange", "resume"];

const NUMBER = /^-?\d+(\.\d+)?$/; // decimals are strings

function ascending(a, b) {
  if (a === b) return 0;
  if (a == null || b == null) return a == null ? -1 : 1;
  if (NUMBER.test(a) && NUMBER.test(b)) [a, b] = [+a, +b];
  return a < b ? -1 : +(a > b);
}

// With a limit, documents far behind it are dropped, and a new snapshot fills the list.
class Live extends Store {
  #documents = new Map();
  #limit;
  #last; // unknown documents may follow it
  #refilling = false;

  constructor(db, collection, { order, limit, compare, onError, ...options }) {
    super();
    const [sign, field] = order?.[0] === "-" ? [-1, order.slice(1)] : [1, order];
    const value = ({ id, data }) => (field in data ? data[field] : id);
    const by = compare ?? ((a, b) => sign * ascending(value(a), value(b)));
    this.compare = (a, b) => by(a, b) || ascending(a.id, b.id);
    this.#limit = limit ?? Infinity;
    const snapshot = order || limit ? { order, limit } : true;
    this.subscription = db._watch(collection, { transitions: true, ...options, snapshot }, {
      event: (frame) => this.#event(frame),
      snapshot: (documents, truncated) => this.#fill(documents, truncated),
      error: onError,
    });
    this.db = db;
  }

  get documents() {
    return this.getSnapshot();
  }
  get ready() {
    return this.subscription.ready.promise;
  }
  update(options) {
    return this.subscription.update(options);
  }
  stop() {
    this.subscription.stop();
  }

  #event({ event, document }) {
    if (event === "left" || event === "deleted") this.#documents.delete(document.id);
    else this.#documents.set(document.id, whole(document));
    this.db._changed.add(this);
  }

  #fill(documents, truncated) {
    const kept = (each) => {
      const old = this.#documents.get(each.id);
      return JSON.stringify(old?.data) === JSON.stringify(each.data) ? old : each;
    };
    this.#documents = byId(documents.map(whole).map(kept));
    this.#last = truncated && this.#sorted().at(-1);
    this.db._changed.add(this);
  }

  #sorted() {
    return [...this.#documents.values()].sort(this.compare);
  }

  #refill() {
    if (this.#refilling) return;
    this.#refilling = true;
    setTimeout(() => {
      this.#refilling = false;
      this.update({});
    }, 500);
  }

  _flush() {
    let shown = this.#sorted();
    const last = this.#last;
    if (this.#limit < Infinity) {
      if (last) shown = shown.filter((each) => this.compare(each, last) <= 0);
      if (shown.length > 3 * this.#limit) this.#last = shown[(shown.length = 2 * this.#limit) - 1];
      this.#documents = byId(shown);
      if (last && shown.length < this.#limit) this.#refill();
      shown = shown.slice(0, this.#limit);
    }
    this._set(shown);
  }
}

class Room extends Store {
  participants = 0;
  seen = new Set();
  cursor;
  #joined = false;
  #outbox = new Set();
  #ready = deferred();

  constructor(db, name, options) {
    super();
    Object.assign(this, { db, name, options, state: options.state });
  }

  get members() {
    return this.getSnapshot();
  }
  get ready() {
    return this.#ready.promise;
  }

  async broadcast(message, options) {
    if (this.db._rooms.get(this.name) !== this) throw new RealtimeError(CLOSED);
    const idempotency_key = Date.now().toString(36) + Math.random().toString(36).slice(1);
    const frame = { type: "broadcast", room: this.name, message, ...options, idempotency_key };
    const item = { frame, at: Date.now(), ...deferred() };
    this.#outbox.add(item);
    if (this.#joined) this.#say(item);
    return item.promise;
  }

  #say(item) {
    const settle = (reply) => {
      if (reply === CLOSED) return; // sent again after a reconnection
      this.#outbox.delete(item);
      if (reply.type === "error") item.reject(new RealtimeError(reply));
      else item.resolve();
    };
    if (Date.now() - item.at < FORGOTTEN) this.db._ask(item.frame, settle);
    else settle({ ...CLOSED }); // a copy: it fails
  }

  async setState(state) {
    this.state = state;
    if (!this.#joined) return;
    await this.db.request({ type: "state", room: this.name, state });
    const me = this.db.user?.id ?? this.db.connection;
    this._set(this.members.map((each) => (each.id === me ? { ...each, state } : each)));
  }

  leave() {
    if (this.db._rooms.get(this.name) !== this) return;
    this.db._rooms.delete(this.name);
    this._lost(CLOSED);
    this.db._ask({ type: "leave", room: this.name });
  }

  start() {
    const { name: room, state, cursor } = this;
    if (this.db._rooms.get(room) !== this) return;
    const { presence, history } = this.options;
    const frame = { type: "join", room, presence, state, history, since: cursor };
    this.db._ask(frame, (reply) => {
      if (reply === CLOSED || this.db._rooms.get(room) !== this) return;
      if (reply.type !== "error") {
        this.#joined = true;
        this.tries = 0;
        if (!reply.resumed) this.cursor = reply.cursor;
        if (reply.resync) this._emit("resync", reply.resync.reason);
        this.reply = reply;
        this.participants = reply.participants;
        this._list(reply, []);
        for (const item of this.#outbox) this.#say(item);
      } else if (failed(reply)) {
        this._failed(reply);
      } else if (reply.retry_after_ms != null) {
        this.db._later(reply.retry_after_ms, () => this.start());
      } else {
        this.db._rooms.delete(room);
        this._lost(reply);
        this.db._fail(reply, this.options.onError);
      }
    });
  }

  _failed(frame) {
    this.#joined = false;
    this.#ready = this.db._again(this, frame, this.#ready, this.options.onError);
  }

  _lost(frame) {
    this.#joined = false;
    if (!frame) return;
    const error = new RealtimeError(frame);
    for (const item of this.#outbox) item.reject(error);
    this.#outbox.clear();
    this.#ready.reject(error);
    this.#present([], 0);
  }

  _said(frame) {
    if (isNew(frame, this)) this._emit("message", frame);
  }

  // Members may come in several frames.
  _list({ members, more }, old = this.members) {
    this._set([...byId([...old, ...members]).values()]);
    if (!more) this.#ready.resolve(this.reply);
  }

  _presence(frame) {
    const { event, member, participants } = frame;
    const members = byId(this.members);
    if (event === "left") members.delete(member.id);
    else members.set(member.id, member);
    this.#present([...members.values()], participants);
    this._emit("presence", frame);
  }

  #present(members = [], participants) {
    this.participants = participants;
    this._set(members);
  }
}

export class Realtime extends Emitter {
  status = "idle";
  user = null;
  latency = null;
  _live = false;
  _subscriptions = new Map();
  _rooms = new Map();
  _changed = new Set();
  #link = null;
  #asks = new Map();
  #last = 0;
  #attempt = 0;
  #due = 0; // time of the next connection
  #hold = 0; // the server refuses earlier ones
  #asked = 0; // time of an unanswered frame
  #slept;
  #pinged = 0;
  #refresh = 0;
  #count = 0;
  #every;
  #sent;
  #ticker;
  #ticked;
  #timer;
  #closing;

  constructor({ url = "/realtime/", token, timeout = 8000, WebSocket } = {}) {
    super();
    Object.assign(this, { url, token, timeout, WebSocket });
  }

  watchCollection(collection, fn, { onSnapshot, onResync, onError, ...options } = {}) {
    const event = (frame) => fn(Object.assign(frame, { data: frame.document.data }));
    const snapshot = (documents, truncated, error) => error || onSnapshot?.(documents, truncated);
    const sink = { event, snapshot, resync: onResync, error: onError };
    const subscription = this._watch(collection, options, sink);
    const stop = () => subscription.stop();
    stop.update = (changes) => subscription.update(changes);
    stop.ready = subscription.ready.promise;
    return stop;
  }

  live(collection, options = {}) {
    return new Live(this, collection, options);
  }

  room(name, options = {}) {
    let room = this._rooms.get(name);
    if (!room) {
      this._rooms.set(name, (room = new Room(this, name, options)));
      this.#begin(() => room.start());
    }
    return room;
  }

  request(frame) {
    return new Promise((resolve, reject) =>
      this._ask(frame, (reply) =>
        reply.type === "error" ? reject(new RealtimeError(reply)) : resolve(reply),
      ),
    );
  }

  connect() {
    if (this.#link) return;
    this.url = new URL(this.url, globalThis.location?.href).href.replace(/^http/, "ws");
    if (!this.#ticker) {
      this.#ticked = Date.now();
      this.#ticker = setInterval(() => this.#tick(), Math.min(1000, this.timeout / 4));
      WAKERS.forEach((name) => globalThis.addEventListener?.(name, this.#wake));
    }
    this.#open((this.#link = {}));
  }

  close() {
    this.#lost(1000, true);
  }

  _watch(collection, options, sink) {
    const name = `${collection}#${++this.#last}`;
    const subscription = new Subscription(this, name, collection, options, sink);
    this._subscriptions.set(name, subscription);
    this.#begin(() => subscription.start());
    return subscription;
  }

  _ask(frame, done) {
    if (!this._live && frame.type !== "auth") return done?.(CLOSED);
    const id = ++this.#last;
    this.#asks.set(id, done);
    this.#send({ ...frame, id });
  }

  _later(delay, fn) {
    const link = this.#link;
    setTimeout(() => link === this.#link && this._live && fn(), delay);
  }

  // Report a failure of the server's code, and try again, each time after twice as long.
  _again(it, frame, { reject }, handler) {
    const delay = 500 * 2 ** Math.min((it.tries = (it.tries ?? 0) + 1), 7) * (1 + Math.random());
    this._later(Math.max(delay, frame.retry_after_ms ?? 0), () => it.start());
    reject(this._fail(frame, handler));
    return deferred();
  }

  #begin(fn) {
    if (this._live) fn();
    else if (this.status === "idle") this.connect();
  }

  #become(status, detail) {
    this.status = status;
    this._emit("status", { status, ...detail });
  }

  async #open(link) {
    clearTimeout(this.#timer);
    this.#due = 0;
    this.#become("connecting");
    try {
      link.token = await (typeof this.token === "function" ? this.token() : this.token);
      if (link !== this.#link) return;
      const socket = (link.socket = new (this.WebSocket ?? WebSocket)(this.url));
      this.#asked = Date.now();
      socket.onopen = () => link === this.#link && this.#authenticate(link);
      socket.onmessage = ({ data }) => link === this.#link && this.#receive(JSON.parse(data));
      socket.onclose = ({ code }) => link === this.#link && this.#lost(code);
    } catch ({ message }) {
      if (link !== this.#link) return;
      this._fail({ code: "not_connected", message });
      this.#lost(1006);
    }
  }

  #authenticate({ token }) {
    this._ask({ type: "auth", token: token ?? undefined, batch: true }, (hello) => {
      if (hello.type === "error") {
        if (this._live || failed(hello)) this._fail(hello);
        if (!failed(hello)) return;
        if (this._live) this.#refresh = Date.now() + 5000;
        else this.#lost((this.#closing = { ...hello, code: 4100 }).code);
        return;
      }
      this.user = hello.user;
      this.connection = hello.connection;
      this.#every = hello.heartbeat * 1000;
      const left = Date.parse(hello.expires_at) - Date.now(); // NaN without an expiry
      this.#refresh = typeof this.token === "function" && Date.now() + Math.max(5000, 0.8 * left);
      if (this._live) return;
      this._live = Date.now();
      this.#pinged = 0;
      this.#become("live");
      this._subscriptions.forEach((each) => each.start());
      this._rooms.forEach((each) => each.start());
    });
  }

  #send(frame) {
    this._emit("frame", { direction: "out", frame });
    this.#link.socket.send(JSON.stringify(frame));
  }

  #receive(frame) {
    this.#asked = this.#slept = 0;
    this._emit("frame", { direction: "in", frame });
    this.#take(frame);
    this._changed.forEach((store) => store._flush());
    this._changed.clear();
  }

  #take(frame) {
    const subscription = this._subscriptions.get(frame.subscription);
    if (this.#asks.has(frame.id)) {
      const done = this.#asks.get(frame.id);
      this.#asks.delete(frame.id);
      return call(done, frame);
    }
    switch (frame.type) {
      case "events":
        return frame.events.forEach((each) => this.#take(each));
      case "event":
        if (frame.event === "direct" || frame.room === "*") return this._emit("message", frame);
        if (frame.room) return this._rooms.get(frame.room)?._said(frame);
        for (const name of frame.subscriptions ?? []) this._subscriptions.get(name)?.event(frame);
        if (frame.cursor && ++this.#count % 32 === 0)
          this.#send({ type: "ack", cursor: frame.cursor });
        return;
      case "snapshot":
        return subscription?.snapshot(frame);
      case "cursor":
        return subscription?.position(frame);
      case "members":
        return this._rooms.get(frame.room)?._list(frame);
      case "presence":
        return this._rooms.get(frame.room)?._presence(frame);
      case "pong":
        this.latency = performance.now() - this.#sent;
        return this._emit("latency", this.latency);
      case "closing":
        this.#closing = frame;
        return;
      case "error":
        (subscription ?? this._rooms.get(frame.room) ?? this)._failed(frame);
    }
  }

  // Check the connection.
  #wake = () => {
    if (this._live) this.#ping();
    else if (this.#due) this.#wait(this.#hold - Date.now());
  };

  #tick() {
    const now = Date.now();
    if (now - this.#ticked > 5000 || (this._live && now < this.#ticked)) {
      if (!this.#slept) this.#asked &&= now; // once: in hidden tabs, all ticks are late
      this.#slept = true;
      this.#wake();
    }
    this.#ticked = now;
    if (!this.#link) return this.#due && now >= this.#due && this.connect();
    if (this.#asked && now - this.#asked > this.timeout) return this.#lost(4122);
    if (!this._live) return;
    if (now - this.#pinged >= this.#every) this.#ping();
    if (this.#refresh && now > this.#refresh) this.#renew(this.#link);
  }

  #ping() {
    this.#pinged = Date.now();
    this.#asked ||= this.#pinged;
    this.#sent = performance.now();
    this.#send({ type: "ping" });
  }

  async #renew(link) {
    this.#refresh = 0;
    try {
      const token = await this.token();
      if (link === this.#link) this.#authenticate({ token });
    } catch ({ message }) {
      this._fail({ code: "not_refreshed", message });
    }
  }

  #wait(delay) {
    delay = Math.max(0, delay);
    clearTimeout(this.#timer);
    this.#due = Date.now() + delay;
    this.#timer = setTimeout(() => this.connect(), delay);
    this.#become("waiting", { delay });
  }

  #lost(code, ours) {
    const { socket } = this.#link ?? {};
    const closing = this.#closing ?? { code };
    const now = Date.now();
    // A server that moves its clients to others is no failure, however often it happens.
    if (this._live && (closing.code === 4200 || now - this._live > SETTLED)) this.#attempt = 0;
    this.#link = this.#closing = null;
    this._live = false;
    this.#asked = this.#refresh = 0;
    this._subscriptions.forEach((each) => (each.active = false));
    this._rooms.forEach((each) => each._lost());
    const asks = this.#asks;
    this.#asks = new Map();
    asks.forEach((done) => call(done, CLOSED));
    socket?.close();

    code = closing.code;
    // no hash is empty: the server has all subscriptions load their data again
    if (code === 4201) this._subscriptions.forEach((each) => (each.scope = ""));
    if (ours || (code >= 4500 && code < 5000 && code !== 4504)) return this.#stop(code, ours, closing.reason);
    const after = closing.retry_after_ms ?? 0;
    this.#hold = code === 4200 ? Math.random() * after : Math.max(after, code === 4101 && 5000);
    const atOnce = !this.#attempt && ((code >= 4200 && code < 4300) || code === 4110);
    const jitter = Math.random() * Math.min(30000, 500 * 2 ** this.#attempt++);
    const delay = this.#hold + (atOnce ? 0 : jitter);
    this.#hold += now;
    this.#wait(delay);
  }

  #stop(code, ours, message) {
    clearTimeout(this.#timer);
    clearInterval(this.#ticker);
    this.#ticker = null;
    this.#due = 0;
    WAKERS.forEach((name) => globalThis.removeEventListener?.(name, this.#wake));
    this.#become("closed", { code });
    if (ours) return;
    const error = this._fail({ code, message });
    this._subscriptions.forEach((each) => each.ready.reject(error));
    this._rooms.forEach((each) => each._lost({ code, message }));
  }
}

// {% realtime %} sets the URL.
const page = globalThis.document?.querySelector("script[data-realtime-url]")?.dataset;
if (page && !globalThis.realtime) {
  globalThis.realtime = new Realtime({ url: page.realtimeUrl, token: page.realtimeToken });
  document.dispatchEvent(new CustomEvent("realtime", { detail: globalThis.realtime }));
}

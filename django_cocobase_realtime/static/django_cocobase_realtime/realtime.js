// The client of django-cocobase-realtime. Its options and types are in realtime.d.ts.

const CLOSED = { type: "error", code: "closed", message: "Closed." };
const UNANSWERED = "The server hangs, or refuses.";
const QUERY = ["filters", "fields", "document"];
const WATCH = [...QUERY, "events", "changed", "transitions", "snapshot"];
const LIVE = [...QUERY, "order", "limit", "after"];
const COUNT = ["filters", "document", "groupBy", "sum", "avg", "min", "max"];
const WAKERS = ["online", "offline", "pageshow", "visibilitychange", "resume"];

// ---- Errors and values ----

/** A refusal or failure, of which `source` names the cause. */
export class RealtimeError extends Error {
  name = "RealtimeError";
  constructor({ code, message, retry_after_ms, source = "server", subscription, room, cause }) {
    super(message ?? `Closed with ${code}.`, { cause });
    Object.assign(this, { code, retryAfter: retry_after_ms, source, subscription, room });
  }
}

const thrown = (source, cause, code = `${source}_failed`) => {
  const message = cause?.message ?? `${cause}`;
  return { code, message, source, cause };
};

function check(options, names) {
  for (const name in options)
    if (!names.includes(name)) throw new TypeError(`Unknown option: ${name}.`);
  JSON.stringify(options?.filters, (key, value) => {
    if (value === undefined && key) throw new TypeError(`The filter ${key} is undefined.`);
    return value;
  });
}

// Refuse what the server would refuse before it could read the id.
function encode(value, limit) {
  const depths = new Map();
  let keys = 0;
  const refuse = (message, code = "bad_request") => {
    throw new RealtimeError({ code, message });
  };
  const text = JSON.stringify(value, function (key, each) {
    if (each === undefined && Array.isArray(this)) refuse("undefined in a list.");
    const depth = (depths.get(this) ?? 0) + 1;
    if (Object(each) === each) depths.set(each, depth);
    if (depth > 17 || (keys += !Array.isArray(this)) > 512) refuse("Too many levels or keys.");
    if (/[\0\ud800-\udfff]/u.test(typeof each === "string" ? key + each : key))
      refuse("NUL or a lone surrogate.");
    const size = typeof each === "number" ? Math.abs(each) : 0;
    if (!(size <= 2 ** 53 || (size >= 1e21 && size < Infinity)))
      refuse("A number beyond 2^53, or not finite.");
    return each;
  });
  if (text === undefined) refuse("No value.");
  if (new TextEncoder().encode(text).length > limit) refuse(`Over ${limit} bytes.`, "too_large");
  return text;
}

const copy = (value, limit) => JSON.parse(encode(value, limit));

function freeze(value) {
  if (Object(value) === value) Object.values(Object.freeze(value)).forEach(freeze);
  return value;
}

// Return the promise of a function, also if it throws.
function promised(fn) {
  try {
    return fn();
  } catch (error) {
    const promise = Promise.reject(error);
    if (error.code === "closed") promise.catch(() => {});
    return promise;
  }
}

// A promise that can be replaced after it was settled.
class Outcome {
  constructor() {
    this.renew();
  }
  renew() {
    if (this.pending) return;
    this.pending = true;
    this.promise = new Promise((resolve, reject) => Object.assign(this, { resolve, reject }));
    this.promise.catch(() => {}); // if ignored, it must not end Node
  }
  done(value, error) {
    this.pending = false;
    if (error) this.reject(error);
    else this.resolve(value);
  }
}

const failed = ({ code }) => code === "internal_error";

// Groups have a key instead of an id.
const keyOf = ({ id, key }) => id ?? JSON.stringify(key);
const byKey = (all) => new Map(all.map((each) => [keyOf(each), each]));

// A document without data was too large, or its serializer failed.
const whole = ({ id, data, error }) =>
  freeze(data ? { id, data } : { id, data: {}, [error ? "error" : "truncated"]: true });

// ---- Listeners ----

class Emitter {
  #listeners = {};
  /** Call a function for each event of a name. Returns a function that ends this. */
  on(name, fn) {
    const listener = (value) => this._call(fn, value);
    const all = (this.#listeners[name] ??= new Set()).add(listener);
    return () => void all.delete(listener);
  }
  _emit(name, value) {
    const all = this.#listeners[name];
    const count = all?.size;
    for (const listener of [...(all ?? [])]) if (all.has(listener)) listener(value);
    return count;
  }
}

// A store for Svelte and React, which is requested again on each connection.
class Store extends Emitter {
  known = false; // to the server
  tries = 0; // after failures of the server's code
  seen = new Set();
  outcome = new Outcome();
  #value = freeze([]);
  #item = {}; // the last request

  constructor(db, all, name) {
    super();
    Object.assign(this, { db, all, name });
  }
  /** Call a function with the value, now and after each change. */
  subscribe = (fn) => {
    const stop = this.on("change", fn);
    this._call(fn, this.#value);
    return stop;
  };
  /** Return the value: the same object until it changes. */
  getSnapshot = () => this.#value;
  /** A promise that resolves when the server has accepted, and all has arrived. */
  get ready() {
    return this.outcome.promise;
  }
  get _used() {
    return this.all.get(this.name) === this;
  }
  _require() {
    if (!this._used || this.db.status === "closed") throw this._error(CLOSED);
  }
  // Show values, of which those that are equal to shown ones stay the same objects.
  _set(values, changed) {
    const shown = byKey(this.#value);
    const value = Array.from(values, (each) => {
      const old = shown.get(keyOf(each));
      return old === each || JSON.stringify(old) === JSON.stringify(each) ? old : each;
    });
    const isSame = (each, i) => each === this.#value[i];
    if (!changed && value.length === this.#value.length && value.every(isSame)) return;
    this._emit("change", (this.#value = Object.freeze(value)));
  }
  _call(fn, ...values) {
    this.db._run(fn, values, this._place);
  }
  _fail(frame) {
    this.db._fail({ ...frame, ...this._place }, this.onError);
  }
  _error(frame) {
    return new RealtimeError({ ...frame, ...this._place });
  }
  _ask(frame, done) {
    if (!this.#item.id) this.#item.cancelled = true; // it waits
    const settle = (reply) => {
      if (reply !== CLOSED && this._used) done(reply);
    };
    this.#item = this.db._ask(frame, settle, this);
  }
  // Try again later and later, since the server's code failed.
  _again(frame) {
    this._retry(frame);
    this.outcome.done(null, this._error(frame));
    this.outcome.renew();
    this._fail(frame); // its handler may stop it
  }
  _retry(frame) {
    const delay = 500 * 2 ** Math.min(++this.tries, 7) * (1 + Math.random());
    const item = this.#item;
    // unless it is requested before, or waits for a connection
    const again = () => this._used && this.#item === item && this._start();
    setTimeout(again, Math.max(delay, frame.retry_after_ms ?? 0));
  }
  _remove(frame) {
    this.all.delete(this.name);
    this.#item.cancelled = true;
    this._end(CLOSED);
    if (this.known) this.db._ask(frame);
  }
  _reset() {
    this.cursor = this.scope = undefined;
    this.seen.clear();
    this.outcome.renew();
  }
  _end(frame) {
    this.outcome.done(null, this._error(frame));
  }
  _isNew({ cursor }) {
    const { seen } = this;
    if (seen.has(cursor)) return false;
    if (cursor) seen.add((this.cursor = cursor));
    const [oldest] = seen;
    if (seen.size > 1000) seen.delete(oldest);
    return true;
  }
}

// ---- Subscriptions ----

class Subscription extends Store {
  #active = false; // on this connection
  #next; // options that replace the others
  #query; // what the server has accepted
  #loading; // the result is not complete
  #parts = []; // of an incomplete frame
  #moves = []; // of a move that is incomplete, or waits for the snapshot
  #draft; // values by key; null if those that are shown have not changed

  constructor(db, collection, { since, scope, ...options }, handlers) {
    super(db, db._subscriptions, `${collection}#${++db._last}`);
    Object.assign(this, { collection, options, cursor: since, scope, ...handlers });
    db._begin(this);
  }
  get _place() {
    return { subscription: this.name };
  }
  get _wanted() {
    return this.#next ?? this.options;
  }

  _start() {
    const wanted = this._wanted;
    const from = !this.#next && this.cursor && { since: this.cursor, scope: this.scope };
    const { name: subscription, collection } = this;
    const query = this._query(wanted);
    this._ask({ type: "subscribe", subscription, collection, ...query, ...from }, (reply) => {
      if (reply.type === "error") return this._refused(reply, wanted);
      this.#active = true;
      this.tries = 0;
      this.options = wanted;
      this.#query = query;
      this.reply = reply;
      if (this.#next === wanted) this.#next = null;
      this._on_resync({ ...reply, ...reply.resync });
    });
  }
  _query(options) {
    return options;
  }

  /** Replace options. If the server refuses, the old ones stay. */
  update(options) {
    check(options, this.names);
    return promised(() => {
      this._require();
      this.#next = { ...this._wanted, ...copy(options, this.db._limits.message_bytes) };
      this.outcome.renew();
      const { ready } = this; // a refusal renews it
      if (this.db.status === "live") this._start();
      return ready;
    });
  }

  /** End the subscription. */
  stop() {
    if (this._used) this._remove({ type: "unsubscribe", subscription: this.name });
    this.#draft = null;
  }

  _on_resync({ scope, cursor, reason, resumed }) {
    const { snapshot, window, aggregate } = this.#query;
    const computed = window ?? aggregate; // by the server, which answers with a frame
    this.scope = scope;
    this.#loading = computed || (snapshot && !resumed);
    // an incomplete result starts again
    if (!computed || !resumed) this.cursor = this.#loading ? null : cursor;
    if (snapshot) this.#parts = [];
    this.#moves = [];
    if (!resumed) this.seen.clear();
    if (reason) this._call(this.onResync, reason);
    this.#done();
  }

  _refused(reply, wanted = this.options) {
    const replacing = this.#next;
    if (replacing && replacing !== wanted) return;
    if (failed(reply) && !replacing) return this._again(reply);
    if (!replacing) {
      this.all.delete(this.name);
      this._clear?.();
    }
    this.#next = null; // keep the old options
    this.outcome.done(null, this._error(reply));
    if (replacing) {
      this.outcome.renew();
      if (this.#active) this.#done();
      else if (this.tries || failed(reply)) this._retry(reply);
      else this._start();
    }
    this._fail(reply);
  }

  _ended(frame) {
    this.#active = false;
    this._refused(frame);
  }
  _lost() {
    this.known = this.#active = false;
  }
  _end(frame) {
    this.#active = this.#next = null;
    super._end(frame);
  }
  _reset({ code }) {
    super._reset();
    this.#active = false;
    this._clear?.();
    if (code === "user_changed") this._call(this.onResync, code);
  }
  #done() {
    if (!this.#next && !this.#loading) this.outcome.done(this.reply);
  }

  _event(frame) {
    if (this.#active && this._isNew(frame)) this._call(this.onEvent, frame);
  }
  _on_cursor(frame) {
    const incomplete = this.#parts.length || (this.#loading && this.#query.snapshot);
    if (this.#active && !incomplete) this.#arrived(frame);
  }
  _on_snapshot(frame) {
    const all = this.#loading && this.#collect(frame, frame.more);
    if (!all) return;
    this.#arrived(frame);
    this._call(this.onSnapshot, all("documents"), frame.truncated);
    this.#moves.splice(-1).forEach((each) => this._on_moved(each));
  }
  // Apply a window or aggregate when its last part has arrived.
  _on_result(frame) {
    const all = this.#collect(frame, frame.partial);
    if (!all) return;
    this.#arrived(frame);
    if (all("reset")[0]) this._show(new Map());
    this._apply(all, frame);
  }
  // With the last part of a frame, return a function that joins the values of a key in all parts.
  #collect(frame, more) {
    if (!this.#active) return;
    if (frame.reset) this.#parts = [];
    this.#parts.push(frame);
    if (more) return void (this.cursor = null); // an incomplete result cannot be continued
    const parts = this.#parts.splice(0);
    return (key) => parts.flatMap((each) => each[key]);
  }
  #arrived({ cursor, scope }) {
    this.cursor = cursor;
    this.scope = scope ?? this.scope;
    this.#loading = false;
    this.#done();
  }
  // A move counts when it is complete: a new connection continues from before an incomplete one.
  _on_moved(frame) {
    const emit = (event) => (document) =>
      this._event({ type: "event", collection: this.collection, event, document });
    this.#moves.push(frame);
    if (frame.more || this.#loading) return;
    this.#arrived(frame);
    for (const { left, entered } of this.#moves.splice(0)) {
      left.map((id) => ({ id })).forEach(emit("left"));
      entered.forEach(emit("entered"));
    }
  }

  // Return the values to show after this frame, which may be changed until then.
  _show(values = this.#draft ?? byKey(this.getSnapshot())) {
    this.db._changed.add(this);
    return (this.#draft = values);
  }
  _flush() {
    const draft = this.#draft;
    const changed = this._changed;
    this.#draft = this._changed = null;
    if (draft) this._set(draft.values(), changed);
  }
}

// ---- Lists and counts ----

// A window, which the server keeps, or a list of all documents.
class Live extends Subscription {
  /** Whether further documents match, behind those of the list. */
  hasMore = false;
  #page = null;
  #step;

  constructor(db, collection, { onError, ...options }) {
    super(db, collection, options, {
      names: LIVE,
      onError,
      onEvent: ({ event, document }) => {
        if (/left|deleted/.test(event)) this._show().delete(document.id);
        else this._show().set(document.id, whole(document));
      },
      onSnapshot: (documents, truncated) => this.#fill(documents.map(whole), truncated),
    });
    this.#step = options.limit;
  }
  _query({ order, limit, after, transitions = true, ...options }) {
    if ((order ?? limit ?? after) == null) return { ...options, transitions, snapshot: true };
    return { ...options, window: { order, limit, after } };
  }

  get documents() {
    return this.getSnapshot();
  }
  /** The cursor of the page behind the list, or null. */
  get next() {
    return this.hasMore ? this.#page : null;
  }
  /** Show more documents. Resolves when they have arrived. */
  more(count = this.#step ?? this._wanted.limit) {
    const { limit } = this._wanted;
    return limit ? this.update({ limit: limit + count }) : this.ready;
  }

  _apply(all, { more, next }) {
    const removed = new Set(all("remove"));
    const documents = [...this._show().values()].filter(({ id }) => !removed.has(id));
    for (const [index, document] of all("insert")) documents.splice(index, 0, whole(document));
    this.#fill(documents, more, next);
  }
  #fill(documents, more = false, page = this.#page) {
    this._show(byKey(documents));
    this._changed ||= more !== this.hasMore;
    this.hasMore = more;
    this.#page = page;
  }
  _clear() {
    this.#fill([]);
  }
}

class Count extends Subscription {
  /** The number of documents, or null before it is known. */
  value = null;

  constructor(db, collection, { onError, ...options }) {
    super(db, collection, options, { names: COUNT, onError });
  }
  _query({ filters, document, groupBy: group_by, ...options }) {
    const aggregate = { count: true };
    for (const [name, fields] of Object.entries({ ...options, group_by }))
      if (fields != null) aggregate[name] = [fields].flat();
    return { filters, document, aggregate };
  }

  get groups() {
    return this.getSnapshot();
  }
  _apply(all) {
    const groups = this._show();
    for (const { avg, ...group } of all("groups")) {
      for (const name in avg) {
        const { sum, n } = avg[name];
        (group.avg ??= {})[name] = n ? sum / n : null;
      }
      if (group.key && !group.count) groups.delete(keyOf(group));
      else groups.set(keyOf(group), freeze(group));
    }
    this._changed ||= this.value === null;
    this.value = [...groups.values()].reduce((sum, { count }) => sum + count, 0);
  }
  _clear() {
    this._show(new Map());
    this._changed = this.value !== null;
    this.value = null;
  }
}

// ---- Rooms ----

class Room extends Store {
  participants = 0;
  users = 1; // calls of `db.room` without a `leave`
  #joined; // an object per join
  #accepted; // the last state that the server has not refused
  #states = []; // calls of `setState` without an answer
  sent; // the request with the state
  #outbox = new Set();

  constructor(db, name, { onError, ...options }) {
    super(db, db._rooms, name);
    Object.assign(this, { options, onError });
    db._begin(this);
    this.state = this.#accepted = this.options.state;
  }
  get _place() {
    return { room: this.name };
  }
  /** The members. */
  get members() {
    return this.getSnapshot();
  }

  /** Send a message, once and in order. Resolves when the server has accepted it. */
  broadcast(message, options) {
    check(options, ["echo", "ephemeral"]);
    return promised(() => {
      this._require();
      message = copy(message, this.db._limits.message_bytes);
      const idempotency_key = Date.now().toString(36) + Math.random().toString(36).slice(1);
      const frame = { type: "broadcast", room: this.name, message, ...options, idempotency_key };
      const item = Object.assign(new Outcome(), { frame, at: Date.now() });
      this.#outbox.add(item);
      this.#say();
      return item.promise;
    });
  }

  // One after the other: a refusal must not change the order.
  #say() {
    const joined = this.#joined;
    for (const item of joined ? this.#outbox : []) {
      item.sent ??= this.db._ask(item.frame, (reply) => {
        // sent again after the next join
        if (reply === CLOSED || (reply.type === "error" && joined !== this.#joined)) return;
        this.#settle(item, reply);
        this.#say();
      });
      if (!item.frame.ephemeral) return;
    }
  }
  #settle(item, reply) {
    this.#outbox.delete(item);
    if (item.sent) item.sent.cancelled = true;
    item.done(undefined, reply.type === "error" && this._error(reply));
  }
  // Send nothing until the next join, not even what waits for its turn.
  #pause() {
    this.#joined = null;
    for (const each of [this, ...this.#outbox]) {
      if (each.sent) each.sent.cancelled = true;
      each.sent = null;
    }
  }
  // After four minutes the server may forget the key with which a message is sent once.
  _expire(now) {
    for (const item of this.#outbox)
      if (Math.abs(now - item.at) > 240000) this.#settle(item, CLOSED);
  }

  /** Replace the state that the other members see. Only the newest is sent. */
  setState(state) {
    return promised(() => {
      this._require();
      state = this.state = freeze(copy(state, this.db._limits.state_bytes));
      const outcome = Object.assign(new Outcome(), { state });
      this.#states.push(outcome);
      this.#share();
      return outcome.promise;
    });
  }
  #share() {
    const joined = this.#joined;
    if (!joined || this.sent || !this.#states.length) return;
    let sent;
    const newest = () => (sent = this.state);
    const frame = { type: "state", room: this.name, get state() { return newest(); } };
    this.sent = this.db._ask(frame, (reply) => {
      if (reply === CLOSED || joined !== this.#joined) return; // the next join has it
      this.sent = null;
      this.#shared(sent, reply);
      const me = this.db.user?.id ?? this.db.connection;
      if (reply.type !== "error") this._set(this.members.map((each) => (each.id === me ? freeze({ ...each, state: sent }) : each)));
      this.#share();
    });
  }
  #shared(state, reply) {
    const error = reply.type === "error" && this._error(reply);
    if (!error) this.#accepted = state;
    else if (state === this.state) this.state = this.#accepted;
    // it replaced those before
    const count = 1 + this.#states.findIndex((each) => each.state === state);
    for (const outcome of this.#states.splice(0, count)) outcome.done(undefined, error);
  }

  /** Leave, unless another part of the program uses the room. */
  leave() {
    if (this._used && !--this.users) this._remove({ type: "leave", room: this.name });
  }

  _start() {
    const { name: room, cursor: since, state, options } = this;
    const { presence, history } = options;
    this._ask({ type: "join", room, presence, state, history, since }, (reply) => {
      if (reply.type !== "error") {
        this.#joined = {};
        this.tries = 0;
        if (!reply.resumed) this.cursor = reply.cursor;
        if (reply.resync) this._emit("resync", reply.resync.reason);
        this.reply = reply;
        this.participants = reply.participants;
        this._on_members(reply, []);
        this.#shared(state, reply);
        this.#share();
        this.#say();
      } else if (state && /too_large|bad_request/.test(reply.code) && (state !== this.#accepted || state !== this.state)) {
        // the state was refused, not the room
        if (state === this.state) this.#shared(state, reply);
        else if (state === this.#accepted) this.#accepted = undefined;
        this._start();
      } else this._refused(reply);
    });
  }
  _refused(reply) {
    if (failed(reply)) return this._ended(reply);
    this.all.delete(this.name);
    this._end(reply);
    this._fail(reply);
  }
  _ended(frame) {
    this.#pause();
    this._again(frame);
  }
  _lost() {
    this.known = false;
    this.#pause();
  }
  _reset(frame) {
    super._reset();
    this.#accepted = undefined;
    this.#drop(frame);
  }
  _end(frame) {
    super._end(frame);
    this.#drop(frame);
  }
  #drop(frame) {
    frame = { ...frame, type: "error" };
    this.#pause();
    this.#outbox.forEach((item) => this.#settle(item, frame));
    this.state = this.#accepted;
    this.#shared(this.#states.at(-1)?.state, frame);
    this.#present([], 0);
  }

  _said(frame) {
    if (this._isNew(frame)) this._emit("message", frame);
  }
  // Members may come in several frames.
  _on_members({ members, more }, old = this.members) {
    this._set(byKey([...old, ...members]).values());
    if (!more) this.outcome.done(this.reply);
  }
  _on_presence(frame) {
    const { event, member, participants } = frame;
    const members = byKey(this.members);
    if (event === "left") members.delete(member.id);
    else members.set(member.id, member);
    this.#present(members.values(), participants);
    this._emit("presence", frame);
  }
  #present(members, participants) {
    this.participants = participants;
    this._set(members);
  }
}

// ---- The connection ----

// Sends requests in order, and no faster than the server allows.
class Lane {
  #queue = [];
  #count = 0;
  #unanswered = 0;
  #timer;
  #at = performance.now();

  constructor([rate, burst], send) {
    // slower than allowed, since frames may arrive closer together
    Object.assign(this, { rate: (0.9 * rate) / 1000, burst: Math.max(1, burst - 1), send });
    this.tokens = this.burst;
  }
  // After a refusal, an item waits for a delay, and those behind it too.
  add(item, delay) {
    this.#refill();
    if (delay != null) this.tokens = Math.min(this.tokens, 2 - delay * this.rate); // its reply takes one
    item.number ??= ++this.#count;
    this.#queue.push(item);
    this.#queue.sort((a, b) => a.number - b.number);
    this.flush();
  }
  flush() {
    this.#refill();
    clearTimeout(this.#timer);
    this.#queue = this.#queue.filter((item) => !item.cancelled);
    while (this.tokens - this.#unanswered >= 1 && this.#queue.length) {
      this.#unanswered++;
      if (!this.send(this.#queue.shift())) this.#unanswered--; // refused here
    }
    const delay = Math.min(2e9, (1 - this.tokens) / this.rate); // a timer cannot wait longer
    if (this.#queue.length && delay > 0) this.#timer = setTimeout(() => this.flush(), delay);
  }
  // A busy server counts late what it received early, so the reply takes the token.
  answered() {
    this.#refill();
    this.tokens--;
    this.#unanswered--;
    this.flush();
  }
  close() {
    clearTimeout(this.#timer);
    return this.#queue.splice(0);
  }
  #refill() {
    const now = performance.now();
    this.tokens = Math.min(this.burst, this.tokens + (now - this.#at) * this.rate);
    this.#at = now;
  }
}

// Notices that the connection is dead, or that the computer slept.
class Heartbeat {
  every = Infinity; // ms between pings
  #asked = 0; // time since which a frame is awaited
  #pinged = 0;
  ticked;
  #slept = false;

  constructor(timeout, send) {
    Object.assign(this, { timeout, send });
  }
  expect() {
    this.#asked ||= Date.now();
  }
  answered() {
    this.#asked = 0;
    this.#slept = false;
  }
  stop() {
    this.#asked = this.#pinged = 0;
  }
  ping() {
    this.#pinged = Date.now();
    this.expect();
    this.send();
  }
  tick(now, live) {
    const late = now - this.ticked > 5000 || (live && now < this.ticked);
    this.ticked = now;
    this.#asked = Math.min(this.#asked, now);
    if (late) {
      if (!this.#slept) this.#asked &&= now; // once: in hidden tabs, all ticks are late
      this.#slept = true;
    }
    const dead = this.#asked && now - this.#asked > this.timeout;
    if (live && !late && !dead && now - this.#pinged >= this.every) this.ping();
    return { late, dead };
  }
}

// Decides when to connect again.
class Reconnection {
  attempts = 0; // since the last stable connection
  #delay = 0;
  #due = 0;
  #hold = 0; // the server refuses earlier connections
  #timer;

  constructor(connect) {
    this.connect = connect;
  }
  delay({ code, retry_after_ms }, lasted) {
    // after 10 s it was stable; a server that moves its clients is no failure
    if (lasted > 10000 || (lasted >= 0 && code === 4200)) this.attempts = 0;
    const after = retry_after_ms ?? 0;
    const hold = code === 4200 ? Math.random() * after : Math.max(after, code === 4101 ? 5000 : 0);
    const atOnce = !this.attempts && /^42|4110/.test(code);
    const jitter = Math.random() * Math.min(30000, 500 * 2 ** this.attempts++);
    this.#hold = hold + Date.now();
    return hold + (atOnce ? 0 : jitter);
  }
  wait(delay) {
    this.cancel();
    this.#delay = delay;
    this.#due = Date.now() + delay;
    this.#timer = setTimeout(this.connect, Math.min(2e9, delay));
  }
  // The shortest delay from now on.
  get rest() {
    return Math.min(Math.max(0, this.#hold - Date.now()), this.#delay);
  }
  tick(now) {
    if (this.#due && now >= this.#due) this.connect();
  }
  cancel() {
    clearTimeout(this.#timer);
    this.#due = 0;
  }
}

// ---- The client ----

/** A client, which connects when it is first used, and stays connected. */
export class Realtime extends Emitter {
  /** The state of the connection: idle, connecting, live, waiting or closed. */
  status = "idle";
  user = null;
  latency = null;
  _last = 0; // number of the last request or subscription
  _limits = {};
  _subscriptions = new Map();
  _rooms = new Map();
  _changed = new Set(); // lists to show after this frame
  #link; // the connection: socket, asks, lanes
  #identity; // project and user
  #refusal; // the error with which the server closed the client
  #closing; // the server's last frame
  #events = 0;
  #since = NaN; // time of becoming live
  #refresh = NaN; // time to renew the token
  #renewing = false;
  #sent;
  #ticker;
  #heartbeat;
  #reconnection = new Reconnection(() => this.connect());

  constructor(options = {}) {
    super();
    check(options, ["url", "token", "timeout", "WebSocket", "debug"]);
    const { url = "/realtime/", token, timeout = 8000, WebSocket, debug } = options;
    Object.assign(this, { url, token, timeout, WebSocket });
    this.#heartbeat = new Heartbeat(timeout, () => {
      this.#sent = performance.now();
      this.#send({ type: "ping" });
    });
    const print = ({ direction, frame }) => console.debug("realtime", direction, frame);
    if (debug) this.on("frame", debug === true ? print : debug);
  }

  /** Call a function with each event of a collection. Returns a function that ends this. */
  watchCollection(collection, fn, { onSnapshot, onResync, onError, ...options } = {}) {
    check(options, [...WATCH, "since", "scope"]);
    const onEvent = (frame) => fn(freeze({ ...frame, data: frame.document.data }));
    const handlers = { names: WATCH, onEvent, onSnapshot, onResync, onError };
    const subscription = new Subscription(this, collection, options, handlers);
    const stop = () => subscription.stop();
    stop.update = (changes) => subscription.update(changes);
    return Object.defineProperty(stop, "ready", { get: () => subscription.ready });
  }

  /** Return a list of the documents that match, which is kept up to date. */
  live(collection, options = {}) {
    check(options, [...LIVE, "transitions", "onError"]);
    return new Live(this, collection, options);
  }

  /** Return the number of the documents that match, and aggregates of groups of them. */
  count(collection, options = {}) {
    check(options, [...COUNT, "onError"]);
    return new Count(this, collection, options);
  }

  /** Join a room, or return it if it is joined. Each call needs a `leave`. */
  room(name, options = {}) {
    check(options, ["presence", "history", "state", "onError"]);
    const room = this._rooms.get(name);
    // on a closed client, this throws
    if (!room || (this.status === "closed" && !this.#refusal)) return new Room(this, name, options);
    room.users++;
    return room;
  }

  /** Send any request of the protocol. Resolves with its reply. */
  request(frame) {
    const outcome = new Outcome();
    this._ask({ ...frame }, (reply) => {
      outcome.done(reply, reply.type === "error" && new RealtimeError(reply));
    }).once = true;
    return outcome.promise;
  }

  /** Connect now. Needed after `close`, and after a final refusal. */
  connect() {
    if (this.#link) return;
    this.url = new URL(this.url, globalThis.location?.href).href.replace(/^http/, "ws");
    if (!this.#ticker) {
      this.#heartbeat.ticked = Date.now();
      this.#ticker = setInterval(() => this.#tick(), Math.min(1000, this.timeout / 4));
      WAKERS.forEach((name) => globalThis.addEventListener?.(name, this.#wake, true));
    }
    this.#refusal = null;
    if (this.status === "closed") this.#each((each) => each.outcome.renew());
    this.#open((this.#link = { asks: new Map() }));
  }

  /** Disconnect, and reject what waits. */
  close() {
    if (this.status !== "closed") this.#lost(1000, true);
  }

  // -- For subscriptions and rooms

  _begin(store) {
    if (this.status === "idle") {
      // a server that renders pages does nothing
      if (!globalThis.location && !/^\w+:/.test(this.url))
        return store._end(thrown("connection", "There is no page.", "not_connected"));
      this.connect();
    }
    if (this.status === "closed" && !this.#refusal) throw new RealtimeError(CLOSED);
    store.all.set(store.name, store);
    try {
      store.options = copy(store.options, this._limits.message_bytes);
    } catch ({ code = "bad_request", message }) {
      return queueMicrotask(() => store._used && store._refused({ code, message }));
    }
    const start = () => store._used && !store.known && store._start();
    if (this.#refusal) store._end(this.#refusal);
    else if (this.status === "live") queueMicrotask(start);
  }

  _ask(frame, done, store) {
    const item = { frame, done, store };
    const lanes = this.status === "live" && this.#link?.lanes;
    if (lanes) (item.lane = lanes[frame.type] ?? lanes.other).add(item);
    else done?.(CLOSED);
    return item;
  }

  _fail(frame, handler) {
    const error = new RealtimeError(frame);
    if (handler) this._call(() => handler(error));
    else if (!this._emit("error", error)) console.error(error);
  }

  _call(fn, ...values) {
    this._run(fn, values);
  }
  // Call a function of the program. An exception is reported, and harms nothing else.
  _run(fn, values, place) {
    const report = (error) => {
      if (values[0] instanceof RealtimeError) console.error(error);
      else this._fail({ ...thrown("listener", error), ...place });
    };
    try {
      fn?.(...values)?.then?.(null, report);
    } catch (error) {
      report(error);
    }
  }

  // -- States of the connection

  // The only place that changes the state.
  #become(status, detail, enter) {
    this.status = status;
    enter?.();
    // unless a listener has changed it
    if (this.status === status) this._emit("status", { status, ...detail });
  }

  #each(fn) {
    const all = [...this._subscriptions.values(), ...this._rooms.values()];
    all.forEach((each) => each._used && fn(each));
  }

  async #open(link) {
    const current = () => link === this.#link;
    const lost = (problem) => current() && this.#lost(1006, false, problem);
    this.#reconnection.cancel();
    this.#renewing = false;
    this.#become("connecting");
    try {
      link.token = await this.#getToken();
    } catch (error) {
      return lost(thrown("token", error));
    }
    if (!current()) return;
    try {
      const socket = (link.socket = new (this.WebSocket ?? WebSocket)(this.url));
      const refused = ({ message }) => lost(thrown("connection", message ?? UNANSWERED));
      this.#heartbeat.expect();
      socket.onopen = () => {
        link.open = true;
        if (current()) this.#authenticate(link, link.token);
      };
      socket.onmessage = ({ data }) => current() && this.#receive(data);
      // without it, the package ws throws
      socket.onerror = (event) => link.open || refused(event);
      socket.onclose = ({ code }) => {
        if (!link.open) refused({});
        else if (current()) this.#lost(code);
      };
    } catch (error) {
      lost(thrown("connection", error));
    }
  }

  async #getToken() {
    if (typeof this.token !== "function") return this.token;
    let timer;
    const late = (_, reject) => {
      timer = setTimeout(() => reject(new Error("The token function hangs.")), this.timeout);
    };
    try {
      const token = await Promise.race([this.token(), new Promise(late)]);
      if (typeof (token ?? "") !== "string") throw new TypeError("The token is not text.");
      return token;
    } finally {
      clearTimeout(timer);
    }
  }

  #authenticate(link, token) {
    const frame = { type: "auth", token: token ?? undefined, batch: true };
    this.#request({ frame, done: (hello) => this.#welcome(link, hello), once: true });
  }

  #welcome(link, hello) {
    if (hello === CLOSED) return;
    const live = this.status === "live";
    if (hello.type === "error") {
      if (live || failed(hello)) this._fail(hello);
      if (!failed(hello) || link !== this.#link) return;
      if (live) return void (this.#refresh = Date.now() + 5000);
      this.#closing = { ...hello, code: 4100 };
      return this.#lost(4100);
    }
    const now = Date.now();
    const { limits, user, connection } = hello;
    const identity = JSON.stringify([hello.project, user?.id]);
    const changed = this.#identity && this.#identity !== identity;
    this.#identity = identity;
    this.#renewing = false;
    this._limits = { message_bytes: 65536, state_bytes: 1024, ...limits };
    Object.assign(this, { user, connection });
    this.#heartbeat.every = hello.heartbeat * 1000;
    // by the server's clock; NaN without an expiry
    const left = Date.parse(hello.expires_at) - (Date.parse(hello.now) || now);
    this.#refresh = typeof this.token === "function" ? now + Math.max(5000, 0.8 * left) : NaN;
    if (live && !changed) return;
    if (!live) {
      this.#heartbeat.answered();
      const send = (item) => link === this.#link && this.#request(item);
      const rates = { messages_rate: [20, 40], subscribe_rate: [5, 100], broadcast_rate: [10, 20], ...limits };
      const lane = (name) => new Lane(rates[`${name}_rate`], send);
      link.lanes = { subscribe: lane("subscribe"), broadcast: lane("broadcast"), other: lane("messages") };
      this.#since = now;
      this._rooms.forEach((room) => room._expire(now));
    }
    this.#become("live", { user }, () => {
      const message = "Another user logged in.";
      if (changed) this.#each((each) => each._reset({ code: "user_changed", message }));
      this.#each((each) => each._start());
    });
  }

  async #renew(link) {
    this.#refresh = NaN;
    try {
      const token = await this.#getToken();
      if (link !== this.#link) return;
      this.#renewing = true;
      this.#authenticate(link, token);
    } catch (error) {
      if (link !== this.#link) return;
      this.#refresh = Date.now() + 5000;
      this._fail(thrown("token", error, "not_refreshed"));
    }
  }

  #lost(code, ours, problem) {
    const { socket, asks = [], lanes = [] } = this.#link ?? {};
    const lasted = Date.now() - this.#since;
    let closing = this.#closing ?? { code };
    // the new token is another user's, which needs a new connection
    if (closing.code === 4500 && this.#renewing) closing = { code: 4110 };
    this.#link = this.#closing = null;
    this.#since = this.#refresh = NaN;
    this.#heartbeat.stop();
    this.#each((each) => each._lost());
    const unanswered = [...asks.values(), ...Object.values(lanes).flatMap((lane) => lane.close())];
    const largest = Math.max(...unanswered.map(({ size = 0 }) => size));
    for (const { size, cancelled, done } of unanswered)
      if (!cancelled) done?.(code === 1009 && size === largest ? { ...CLOSED, code: "too_large" } : CLOSED);
    socket?.close();

    code = closing.code;
    // no hash is empty: all data is loaded again
    if (code === 4201) this._subscriptions.forEach((each) => (each.scope = ""));
    if (ours || (code >= 4500 && code < 5000 && code !== 4504)) return this.#stop(code, ours, closing.reason);
    const delay = this.#reconnection.delay(closing, lasted);
    if (problem && (problem.source === "token" || this.#reconnection.attempts === 1))
      this._fail({ ...problem, code: "not_connected" });
    // unless a listener has connected or closed
    if (!this.#link && this.status !== "closed") this.#wait(delay);
  }

  #wait(delay) {
    this.#reconnection.wait(delay);
    this.#become("waiting", { delay });
  }

  #stop(code, ours, message) {
    const error = ours ? CLOSED : { code, message };
    this.#reconnection.cancel();
    clearInterval(this.#ticker);
    this.#ticker = null;
    WAKERS.forEach((name) => globalThis.removeEventListener?.(name, this.#wake, true));
    this.#become("closed", { code }, () => {
      if (!ours) {
        this.#refusal = error;
        this.user = this.#identity = null;
        this.#each((each) => each._reset(error));
      }
      this.#each((each) => this.#link || each._end(error));
      this.#show();
    });
    if (!ours) this._fail(error);
  }

  #tick() {
    const now = Date.now();
    const live = this.status === "live";
    if (!live) this._rooms.forEach((room) => room._expire(now));
    const { late, dead } = this.#heartbeat.tick(now, live);
    if (late) this.#wake();
    if (!this.#link) this.#reconnection.tick(now);
    else if (dead) this.#lost(4122, false, !live && thrown("connection", UNANSWERED));
    else if (live && now > this.#refresh) this.#renew(this.#link);
  }

  // Check the connection, or connect.
  #wake = (event) => {
    if (event?.type === "visibilitychange" && document.hidden) return;
    if (this.status === "live") this.#heartbeat.ping();
    else if (this.status === "waiting") this.#wait(this.#reconnection.rest);
  };

  // -- Frames

  #request(item) {
    const { done, store } = item;
    item.id = ++this._last;
    const frame = { ...item.frame, id: item.id };
    let text;
    try {
      text = encode(frame, this._limits.message_bytes);
    } catch ({ code = "bad_request", message }) {
      done?.({ type: "error", code, message });
      return false;
    }
    if (store) store.known = true;
    item.size = text.length;
    this.#link.asks.set(item.id, item);
    this.#send(frame, text);
    return true;
  }

  #send(frame, text = JSON.stringify(frame)) {
    const shown = frame.token ? { ...frame, token: "…" } : frame;
    this._emit("frame", { direction: "out", frame: shown });
    this.#link?.socket?.send(text);
  }

  #receive(data) {
    if (this.status === "live") this.#heartbeat.answered();
    try {
      const frame = freeze(JSON.parse(data));
      this._emit("frame", { direction: "in", frame });
      this.#take(frame);
    } catch (error) {
      this._fail(thrown("server", error, "bad_frame"));
    }
    this.#show();
  }

  #show() {
    const lists = [...this._changed];
    this._changed.clear();
    lists.forEach((list) => list._flush());
  }

  #reply(link, item, frame) {
    const { retry_after_ms: delay } = frame; // of an error
    link.asks.delete(item.id);
    const again = delay != null && !item.once && !(item.store && failed(frame));
    if (again && !item.cancelled) item.lane.add(item, delay);
    item.lane?.answered();
    if (!again && !item.cancelled) item.done?.(frame);
  }

  #take(frame) {
    const link = this.#link;
    const item = link?.asks.get(frame.id);
    const owner = this._subscriptions.get(frame.subscription) ?? this._rooms.get(frame.room);
    if (!link) return; // a listener has closed the client
    if (item) return this.#reply(link, item, frame);
    switch (frame.type) {
      case "events":
        return frame.events.forEach((each) => this.#take(each));
      case "event":
        if (frame.event === "direct" || frame.room === "*") return this._emit("message", frame);
        if (frame.room) return owner?._said(frame);
        for (const name of frame.subscriptions ?? []) this._subscriptions.get(name)?._event(frame);
      // falls through: these are acknowledged too
      case "window":
      case "aggregate":
        owner?._on_result(frame);
        if (frame.cursor && ++this.#events % 32 === 0) this.#send({ type: "ack", cursor: frame.cursor });
        return;
      case "pong":
        return this._emit("latency", (this.latency = performance.now() - this.#sent));
      case "closing":
        return void (this.#closing = frame);
      case "error":
        return owner ? owner._ended(frame) : this._fail(frame);
      default:
        owner?.[`_on_${frame.type}`]?.(frame);
    }
  }
}

// ---- The page ----

// {% realtime %} sets the URL.
const page = globalThis.document?.querySelector("script[data-realtime-url]")?.dataset;
if (page && !globalThis.realtime) {
  globalThis.realtime = new Realtime({ url: page.realtimeUrl, token: page.realtimeToken });
  document.dispatchEvent(new CustomEvent("realtime", { detail: globalThis.realtime }));
}

/** JSON as it travels. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Data = { [field: string]: any };

/** `id` is a string; `data` holds the readable fields. */
export interface Document<T = Data> {
  readonly id: string;
  readonly data: T;
  /** In lists: too large to be sent; `data` is empty. */
  readonly truncated?: true;
}

export type EventName = "created" | "updated" | "deleted" | "entered" | "left";

/** A change. `data` is the document's; of one that `left`, and of one too large for an event
 * (`truncated`), there is only the id. */
export interface ChangeEvent<T = Data> {
  readonly type: "event";
  readonly collection: string;
  readonly event: EventName;
  readonly document: Document<T>;
  readonly data: T;
  readonly changed?: string[];
  readonly subscriptions: string[];
  readonly transaction?: string;
  readonly cursor?: string;
  readonly replayed?: true;
  readonly truncated?: true;
  readonly at: string;
}

export interface Options {
  /** Default: `/realtime` of the page's own site. http(s) is taken as ws(s). */
  url?: string;
  /** An API key, a JWT, or a function that gives one: it is asked before each connection, and
   * before a token expires. Left out, the visitor's Django session counts. */
  token?: string | null | (() => string | null | undefined | Promise<string | null | undefined>);
  /** Milliseconds the server may take to let us in, and to answer a ping. Default 8000. */
  timeout?: number;
  /** Where there is no global one: `import WebSocket from "ws"`. */
  WebSocket?: unknown;
}

export interface SubscriptionOptions {
  filters?: { [key: string]: Json };
  /** Which fields `data` is to hold. */
  fields?: string[];
  /** One document's id. */
  document?: string;
}

export interface WatchOptions<T = Data> extends SubscriptionOptions {
  events?: ("created" | "updated" | "deleted")[];
  /** An update counts only if one of these fields changed. */
  changed?: string[];
  /** Tell of documents that come into the filter (`entered`) and go out of it (`left`). */
  transitions?: boolean;
  /** What matches now, before the first event; and again after a resync. */
  snapshot?: boolean | { limit?: number; order?: string };
  /** Go on from a place that was kept: an event's cursor, and the scope that `ready` gave. */
  since?: string;
  scope?: string;
  onSnapshot?(documents: Document<T>[], truncated?: boolean): void;
  /** What was missed can not be told any more: fetch afresh. */
  onResync?(
    reason:
      | "epoch_changed"
      | "retention"
      | "ahead_of_head"
      | "invalid_cursor"
      | "scope_changed"
      | "replay_limit",
  ): void;
  onError?(error: RealtimeError): void;
}

export interface Subscribed {
  readonly collection: string;
  readonly subscription: string;
  readonly cursor?: string;
  readonly scope?: string;
  readonly durable: boolean;
  readonly resumed?: boolean;
}

/** Ends the watch; made for `useEffect(() => db.watchCollection(...), [])`. */
export interface Stop {
  (): void;
  /** Subscribed, and the snapshot, if one was asked for, is here. */
  readonly ready: Promise<Subscribed>;
  /** Replace some options in one step; refused ones leave the old in force. */
  update(options: Omit<WatchOptions, `on${string}`>): Promise<Subscribed>;
}

/** A value that tells when it changes: Svelte's store contract, React's useSyncExternalStore. */
export interface Store<T> {
  /** Calls `fn` with the value, now and after each change. Returns what ends that. */
  subscribe: (fn: (value: T) => void) => () => void;
  getSnapshot: () => T;
}

export interface LiveOptions<T = Data> extends SubscriptionOptions {
  /** A field; `-` before it for downwards. Ties by id. */
  order?: string;
  /** How many documents there are at most, the first by `order`. */
  limit?: number;
  /** false: for collections with `"track": False`, whose documents are not told to leave. */
  transitions?: boolean;
  /** Another order than by the field's value, the same as the server's. */
  compare?(a: Document<T>, b: Document<T>): number;
  onError?(error: RealtimeError): void;
}

/** The documents that match, as they are now. The array, and each document in it, is the same
 * object until it changes. */
export interface Live<T = Data> extends Store<readonly Document<T>[]> {
  readonly documents: readonly Document<T>[];
  readonly ready: Promise<Subscribed>;
  /** Another filter; the old documents stay until the new ones are here. */
  update(options: SubscriptionOptions): Promise<Subscribed>;
  stop(): void;
}

export interface Member {
  readonly id: string;
  readonly name: string;
  readonly state?: any;
}

export interface Message<T = any> {
  readonly type: "event";
  readonly event: "broadcast";
  readonly room: string;
  readonly message: T;
  /** null for a bare API key, and for the server. */
  readonly sender: { readonly id: string; readonly name: string; readonly verified: boolean } | null;
  readonly cursor?: string;
  readonly replayed?: true;
  readonly at: string;
}

export interface ServerMessage<T = any> {
  readonly event: "broadcast" | "direct";
  readonly room?: "*";
  readonly message: T;
  readonly at: string;
}

export interface Presence {
  readonly event: "joined" | "left" | "updated";
  readonly member: Member;
  readonly participants: number;
}

export interface RoomOptions {
  /** false: join without being listed. */
  presence?: boolean;
  /** How many of the last messages are wanted, where the room keeps them. */
  history?: number;
  /** What the others see of us, such as `{ typing: false }`; at most 1 KiB. */
  state?: { [key: string]: Json };
  onError?(error: RealtimeError): void;
}

/** A room, as a store of its members. */
export interface Room<T = any> extends Store<readonly Member[]> {
  readonly name: string;
  readonly members: readonly Member[];
  readonly participants: number;
  readonly state: any;
  readonly ready: Promise<unknown>;
  on(name: "message", fn: (message: Message<T>) => void): () => void;
  on(name: "presence", fn: (presence: Presence) => void): () => void;
  /** What was said while we were away is not all kept. */
  on(name: "resync", fn: (reason: string) => void): () => void;
  /** Sent once, however often the connection is lost meanwhile. Resolves when the server has it. */
  broadcast(message: T, options?: { echo?: boolean; ephemeral?: boolean }): Promise<void>;
  setState(state: { [key: string]: Json }): Promise<void>;
  leave(): void;
}

export type Status = "idle" | "connecting" | "live" | "waiting" | "closed";

/** `code` is an error code of the protocol, the number of a close code, or one of `closed`,
 * `not_connected`, `not_refreshed`. */
export class RealtimeError extends Error {
  readonly code: string | number;
  /** Milliseconds after which it may be tried again. */
  readonly retryAfter?: number | null;
}

/** Connects at its first use, and stays connected. */
export class Realtime {
  constructor(options?: Options);
  readonly status: Status;
  /** null for a bare API key. */
  readonly user: { readonly id: string; readonly name: string } | null;
  /** Milliseconds that the last ping took. */
  readonly latency: number | null;
  watchCollection<T = Data>(
    collection: string,
    fn: (event: ChangeEvent<T>) => void,
    options?: WatchOptions<T>,
  ): Stop;
  live<T = Data>(collection: string, options?: LiveOptions<T>): Live<T>;
  /** Joins the room; the same object while we are in it. */
  room<T = any>(name: string, options?: RoomOptions): Room<T>;
  /** Any request of the protocol, and its answer. */
  request(frame: { type: string; [key: string]: Json }): Promise<any>;
  /** `delay` in milliseconds, where `waiting`; `code`, where `closed`. */
  on(
    name: "status",
    fn: (change: { status: Status; delay?: number; code?: number }) => void,
  ): () => void;
  on(name: "error", fn: (error: RealtimeError) => void): () => void;
  /** What the server says to everyone in the project (`room` is "*"), or to this user. */
  on(name: "message", fn: (message: ServerMessage) => void): () => void;
  on(name: "latency", fn: (milliseconds: number) => void): () => void;
  on(name: "frame", fn: (passed: { direction: "in" | "out"; frame: any }) => void): () => void;
  /** Connect now, or again after `close` or a final refusal. */
  connect(): void;
  close(): void;
}

declare global {
  interface Window {
    /** Where `{% realtime %}` is on the page. */
    realtime?: Realtime;
  }
  interface DocumentEventMap {
    realtime: CustomEvent<Realtime>;
  }
}

/** Any JSON value. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
export type Data = { [field: string]: any };
/** An object of JSON values, which an interface may describe. */
export type JsonObject = { readonly [key: string]: any };
/** The type of each collection's documents: `new Realtime<{ posts: Post }>()`. */
export type Collections = { [collection: string]: Data };

/** A document of a collection. */
export interface Document<T = Data> {
  /** The primary key as a string. */
  readonly id: string;
  /** The readable fields. */
  readonly data: T;
  /** In lists: the document is too large to send, and `data` is empty. */
  readonly truncated?: true;
  /** The server could not make the document, because its serializer failed. In lists, `data` is
   * empty; otherwise it is missing. */
  readonly error?: true;
}

export type EventName = "created" | "updated" | "deleted" | "entered" | "left";

interface Change {
  readonly type: "event";
  readonly collection: string;
  /** For updates: the readable fields that changed, if the server tracks them. */
  readonly changed?: readonly string[];
  /** Missing if the document has not changed, but the rights of the client. */
  readonly subscriptions?: readonly string[];
  /** The same for all changes of one database transaction. */
  readonly transaction?: string;
  /** Position in the collection's stream. */
  readonly cursor?: string;
  /** The client missed the change, and it was read from the log. */
  readonly replayed?: true;
  /** Time of the change, as ISO 8601. Missing if only the rights of the client have changed. */
  readonly at?: string;
}

/** A change after which the document matches, or that deleted it. */
export interface DocumentEvent<T = Data> extends Change {
  readonly event: "created" | "updated" | "deleted" | "entered";
  /** The document after the change, or before it if it was deleted. */
  readonly document: { readonly id: string; readonly data: T };
  /** The same as `document.data`. */
  readonly data: T;
  readonly truncated?: undefined;
}

/** A change after which the document no longer matches. */
export interface LeftEvent extends Change {
  readonly event: "left";
  readonly document: { readonly id: string; readonly data?: undefined };
  readonly data?: undefined;
  readonly truncated?: undefined;
}

/** A change of a document that is too large to send (`truncated`), or whose serializer failed
 * (`document.error`). */
export interface IncompleteEvent extends Change {
  readonly event: "created" | "updated" | "deleted" | "entered";
  readonly document: {
    readonly id: string;
    readonly data?: undefined;
    readonly error?: true;
    /** In place of the event's, if only the rights of the client have changed. */
    readonly truncated?: true;
  };
  readonly data?: undefined;
  readonly truncated?: true;
}

/** A change of a document. It has `data` unless the document has left, is too large, or could not
 * be made. */
export type ChangeEvent<T = Data> = DocumentEvent<T> | LeftEvent | IncompleteEvent;

export interface Options {
  /** Default: `/realtime/` on the site of the page. http(s) is replaced by ws(s). */
  url?: string;
  /** An API key, a JWT, or a function that returns one, which is called before each connection and
   * before a token expires. By default, the visitor's Django session is used. */
  token?: string | null | (() => string | null | undefined | Promise<string | null | undefined>);
  /** Milliseconds that the server may take to authenticate, and to answer a ping. Default 8000. */
  timeout?: number;
  /** Needed if there is no global WebSocket: `import WebSocket from "ws"`. */
  WebSocket?: unknown;
  /** Print each frame, or pass it to a function. Tokens are left out. */
  debug?: boolean | ((passed: { direction: "in" | "out"; frame: any }) => void);
}

/** A field of a document. */
export type Field<T> = keyof T & string;
/** A field to sort by, with a leading `-` for descending order. */
export type OrderField<T> = Field<T> | `-${Field<T>}` | "id" | "-id";
/** Fields to sort by, in a list or separated by commas. Equal documents are sorted by key. */
export type Order<T> =
  | OrderField<T>
  | `${OrderField<T>},${string}`
  | readonly OrderField<T>[];

export interface SubscriptionOptions<T = Data, F extends Field<T> = Field<T>> {
  filters?: JsonObject;
  /** The fields that `data` contains. Default: all readable ones. */
  fields?: readonly F[];
  /** The id of the only document to watch. */
  document?: string;
}

export interface WatchOptions<T = Data, F extends Field<T> = Field<T>>
  extends SubscriptionOptions<T, F> {
  events?: readonly ("created" | "updated" | "deleted")[];
  /** Receive an update only if one of these fields changed. */
  changed?: readonly Field<T>[];
  /** Receive updates after which a document begins to match as `entered`, and those after which it
   * no longer matches as `left`. */
  transitions?: boolean;
  /** Receive the matching documents before the first event, and again after a resync. */
  snapshot?: boolean | { limit?: number; order?: Order<T> };
  /** The `cursor` of an event of an earlier watch, to continue after it. */
  since?: string;
  /** The `scope` in the result of the earlier watch's `ready`. */
  scope?: string;
  /** `truncated`: there are more documents than the limit. */
  onSnapshot?(documents: readonly Document<Pick<T, F>>[], truncated?: boolean): void;
  /** Called if missed events cannot be delivered any more, or if the client may now see other
   * documents: fetch the data again. */
  onResync?(
    reason:
      | "epoch_changed"
      | "retention"
      | "ahead_of_head"
      | "invalid_cursor"
      | "scope_changed"
      | "replay_limit"
      | "limit_exceeded"
      | "user_changed",
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

/** A function that ends the watch, as `useEffect(() => db.watchCollection(...), [])` needs it. */
export interface Stop {
  (): void;
  /** Resolves when the server has accepted the subscription and the snapshot, if any, is complete. */
  readonly ready: Promise<Subscribed>;
  /** Replace some options in one step. If the server refuses, the watch keeps the old ones. */
  update(options: Omit<WatchOptions, `on${string}` | "since" | "scope">): Promise<Subscribed>;
}

/** A value with subscribers, for Svelte's stores and React's useSyncExternalStore. */
export interface Store<T> {
  /** Call `fn` with the value now and after each change. Returns a function that ends this. */
  subscribe: (fn: (value: T) => void) => () => void;
  getSnapshot: () => T;
}

export interface LiveOptions<T = Data, F extends Field<T> = Field<T>>
  extends SubscriptionOptions<T, F> {
  /** The fields to sort by. Without it, `limit` and `after`, the list has all documents, and new
   * ones are at its end. With one of them, the server keeps the list up to date. */
  order?: Order<T> | null;
  /** The number of documents. Default: as many as the server allows. */
  limit?: number | null;
  /** The `next` of a list with the same order: show the documents behind that list. */
  after?: string | null;
  /** Must be false for collections with `"track": False`. Documents that no longer match then stay
   * in the list. */
  transitions?: boolean;
  onError?(error: RealtimeError): void;
}

/** A list of matching documents, which is kept up to date. The array, and each document in it, is
 * the same object until it changes. `All` is the type of a document with all fields. */
export interface Live<T = Data, All = T> extends Store<readonly Document<T>[]> {
  readonly documents: readonly Document<T>[];
  /** Further documents match, behind those of the list. */
  readonly hasMore: boolean;
  /** The cursor of the page behind the list, for `after`; null if there is none. */
  readonly next: string | null;
  readonly ready: Promise<Subscribed>;
  /** Raise the limit, by `count` or by the first limit. Resolves when the documents have arrived. */
  more(count?: number): Promise<Subscribed>;
  /** Replace options. The old documents stay until the new ones have arrived. */
  update(options: Omit<LiveOptions<All>, "transitions" | "onError">): Promise<Subscribed>;
  stop(): void;
}

/** The name of a field, or several. */
export type Names<T> = Field<T> | readonly Field<T>[];

export interface CountOptions<T = Data> {
  filters?: JsonObject;
  /** The id of the only document to count. */
  document?: string;
  /** Fields whose values make groups. */
  groupBy?: Names<T>;
  /** Fields to aggregate in each group. */
  sum?: Names<T>;
  avg?: Names<T>;
  min?: Names<T>;
  max?: Names<T>;
  onError?(error: RealtimeError): void;
}

/** The documents that have the same values in the fields of `groupBy`. Aggregates that were not
 * requested are missing, and those without values are null. */
export interface Group<T = Data> {
  readonly key?: { readonly [F in Field<T>]?: T[F] | null };
  readonly count: number;
  /** Decimals, and integers beyond 2^53, are strings. */
  readonly sum?: { readonly [F in Field<T>]?: number | string | null };
  readonly avg?: { readonly [F in Field<T>]?: number | null };
  readonly min?: { readonly [F in Field<T>]?: T[F] | null };
  readonly max?: { readonly [F in Field<T>]?: T[F] | null };
}

/** The number of matching documents, and aggregates, which the server keeps up to date. It is a
 * store of the groups. */
export interface Count<T = Data> extends Store<readonly Group<T>[]> {
  /** The number in all groups; null before it is known. */
  readonly value: number | null;
  /** The groups; one without a `key` if there is no `groupBy`. Each is the same object until it
   * changes. */
  readonly groups: readonly Group<T>[];
  readonly ready: Promise<Subscribed>;
  /** Replace options. The old groups stay until the new ones have arrived. */
  update(options: Omit<CountOptions<T>, "onError">): Promise<Subscribed>;
  stop(): void;
}

/** A member of a room. */
export interface Member {
  readonly id: string;
  readonly name: string;
  /** The object that the member shares with `setState`. */
  readonly state?: any;
}

export interface Message<T = any> {
  readonly type: "event";
  readonly event: "broadcast";
  readonly room: string;
  readonly message: T;
  /** null for Django, and for an API key without a user. */
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
  /** With false, join without becoming one of the members. */
  presence?: boolean;
  /** The number of the last messages to receive, if the room keeps them. */
  history?: number;
  /** An object that the other members see, such as `{ typing: false }`; up to 1 KiB. */
  state?: JsonObject;
  onError?(error: RealtimeError): void;
}

/** A room that was joined, which is a store of its members. */
export interface Room<T = any> extends Store<readonly Member[]> {
  readonly name: string;
  readonly members: readonly Member[];
  readonly participants: number;
  readonly state: any;
  readonly ready: Promise<unknown>;
  on(name: "message", fn: (message: Message<T>) => void): () => void;
  on(name: "presence", fn: (presence: Presence) => void): () => void;
  /** Called if messages were missed that the room no longer keeps. */
  on(name: "resync", fn: (reason: string) => void): () => void;
  /** Send a message. Resolves when the server has confirmed it. It is delivered once, even if the
   * connection is lost meanwhile. */
  broadcast(message: T, options?: { echo?: boolean; ephemeral?: boolean }): Promise<void>;
  setState(state: JsonObject): Promise<void>;
  leave(): void;
}

export type Status = "idle" | "connecting" | "live" | "waiting" | "closed";

/** The server refused a request, or closed the connection and does not allow a new one. */
export class RealtimeError extends Error {
  /** An error code of the protocol, a WebSocket close code, or a code of the client: `closed`,
   * `not_connected`, `not_refreshed`, `user_changed`, `listener_failed` or `bad_frame`. */
  readonly code: string | number;
  /** Milliseconds after which the request may succeed. */
  readonly retryAfter?: number | null;
  /** The part that has failed: a function of the program (`listener`, `token`), the server, or
   * the connection. The `cause` is the value that a function has thrown. */
  readonly source: "listener" | "token" | "server" | "connection";
  /** The name of the subscription, if the error belongs to one. */
  readonly subscription?: string;
  /** The name of the room, if the error belongs to one. */
  readonly room?: string;
}

/** A client, which connects when it is first used, and stays connected. */
export class Realtime<C extends { [N in keyof C]: object } = Collections> {
  constructor(options?: Options);
  readonly status: Status;
  /** null for an API key without a user, and for an anonymous visitor. */
  readonly user: { readonly id: string; readonly name: string } | null;
  /** Milliseconds that the server took to answer the last ping. */
  readonly latency: number | null;
  watchCollection<N extends keyof C & string, F extends Field<C[N]> = Field<C[N]>>(
    collection: N,
    fn: (event: ChangeEvent<Pick<C[N], F>>) => void,
    options?: WatchOptions<C[N], F>,
  ): Stop;
  /** With a type of the documents, for a client without types of its collections. */
  watchCollection<T>(
    collection: string extends keyof C ? string : never,
    fn: (event: ChangeEvent<T>) => void,
    options?: WatchOptions<T>,
  ): Stop;
  live<N extends keyof C & string, F extends Field<C[N]> = Field<C[N]>>(
    collection: N,
    options?: LiveOptions<C[N], F>,
  ): Live<Pick<C[N], F>, C[N]>;
  /** With a type of the documents, for a client without types of its collections. */
  live<T>(
    collection: string extends keyof C ? string : never,
    options?: LiveOptions<T>,
  ): Live<T>;
  count<N extends keyof C & string>(collection: N, options?: CountOptions<C[N]>): Count<C[N]>;
  /** With a type of the documents, for a client without types of its collections. */
  count<T>(
    collection: string extends keyof C ? string : never,
    options?: CountOptions<T>,
  ): Count<T>;
  /** Join a room. For a room that is joined already, return the same object. */
  room<T = any>(name: string, options?: RoomOptions): Room<T>;
  /** Send any request of the protocol. Resolves with its reply. */
  request(frame: { type: string; [key: string]: any }): Promise<any>;
  /** `delay` is in milliseconds, for `waiting`; `code` is the close code, for `closed`; `user` is
   * for `live`. */
  on(
    name: "status",
    fn: (change: {
      status: Status;
      delay?: number;
      code?: number;
      user?: { readonly id: string; readonly name: string } | null;
    }) => void,
  ): () => void;
  on(name: "error", fn: (error: RealtimeError) => void): () => void;
  /** Messages from Django to all of the project (`room` is "*"), or to this user. */
  on(name: "message", fn: (message: ServerMessage) => void): () => void;
  on(name: "latency", fn: (milliseconds: number) => void): () => void;
  on(name: "frame", fn: (passed: { direction: "in" | "out"; frame: any }) => void): () => void;
  /** Connect now. Also needed after `close`, or if the server did not allow a reconnection. */
  connect(): void;
  close(): void;
}

declare global {
  interface Window {
    /** The client of a page with the template tag `{% realtime %}`. */
    realtime?: Realtime;
  }
  interface DocumentEventMap {
    realtime: CustomEvent<Realtime>;
  }
}

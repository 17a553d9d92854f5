import { Live } from "./live.js";

const $ = (id) => document.getElementById(id);
const me = document.body.dataset.me;
const COLUMNS = ["todo", "doing", "done"];
const tasks = new Map();
const posts = new Map();

// building blocks

function element(name, props = {}, ...children) {
  const made = Object.assign(document.createElement(name), props);
  made.append(...children);
  return made;
}

async function post(url, body = {}) {
  const token = document.cookie.match(/csrftoken=([^;]+)/)?.[1] ?? "";
  const answer = await fetch(url, {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-CSRFToken": token },
    body: JSON.stringify(body),
  });
  if (!answer.ok) console.error(url, answer.status);
}

function flash(node) {
  node.classList.remove("flash");
  void node.offsetWidth;
  node.classList.add("flash");
}

// tasks

function showTask({ id, data }, fresh = false) {
  let card = tasks.get(id);
  if (!card) {
    card = element("li", { className: "card" });
    card.dataset.id = id;
    tasks.set(id, card);
  }
  const at = COLUMNS.indexOf(data.column);
  const move = (step, label, sign) => {
    const button = element("button", { textContent: sign, title: label, disabled: !COLUMNS[at + step] });
    button.setAttribute("aria-label", `${label}: ${data.title}`);
    button.onclick = () => post(`tasks/${id}/move`, { column: COLUMNS[at + step] });
    return button;
  };
  const remove = element("button", { textContent: "×", title: "Delete", className: "quiet" });
  remove.setAttribute("aria-label", `Delete: ${data.title}`);
  remove.onclick = () => post(`tasks/${id}/delete`);
  card.replaceChildren(
    element("p", { textContent: data.title }),
    element("div", { className: "foot" }, element("span", { className: "who", textContent: data.assignee }),
      element("span", { className: "tools" }, move(-1, "Move left", "←"), move(1, "Move right", "→"), remove)),
  );
  const list = document.querySelector(`[data-cards="${data.column}"]`);
  if (card.parentElement !== list) list.append(card);
  if (fresh) flash(card);
  count();
}

function dropTask(id) {
  tasks.get(id)?.remove();
  tasks.delete(id);
  count();
}

function count() {
  for (const column of COLUMNS) {
    const cards = document.querySelector(`[data-cards="${column}"]`).children.length;
    document.querySelector(`[data-count="${column}"]`).textContent = cards;
  }
}

// posts

function showPost({ id, data }, fresh = false) {
  let item = posts.get(id);
  if (!item) {
    item = element("li");
    posts.set(id, item);
    item.dataset.id = id;
    const next = [...$("posts").children].find((other) => Number(other.dataset.id) < Number(id));
    $("posts").insertBefore(item, next ?? null);
  }
  const draft = data.status !== "published";
  const toggle = element("button", { textContent: draft ? "Publish" : "Withdraw", className: "quiet" });
  toggle.setAttribute("aria-label", `${toggle.textContent}: ${data.title}`);
  toggle.onclick = () => post(`posts/${id}/toggle`);
  item.classList.toggle("draft", draft);
  item.replaceChildren(element("span", { textContent: data.title }), toggle);
  if (fresh) flash(item);
}

function dropPost(id) {
  posts.get(id)?.remove();
  posts.delete(id);
}

// A post that leaves a filtered subscription sends it nothing; a second one, to the ids of
// drafts alone, tells which to take away.
async function watchPosts(live) {
  const only = $("only-published").checked;
  const filters = only ? { status: "published" } : {};
  await watch(live, "posts", { collection: "posts", filters, snapshot: { order: "-created_at" } });
  if (only) {
    await watch(live, "drafts", { collection: "posts", filters: { status: "draft" }, fields: [] });
  } else {
    known.delete("drafts");
    await live.request({ type: "unsubscribe", subscription: "drafts" }).catch(() => {});
  }
}

// the chat

function said({ message, sender, at }) {
  const mine = sender?.name === me;
  const time = new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  $("talk").append(element("li", { className: mine ? "mine" : "" },
    element("span", { className: "name", textContent: mine ? "you" : sender?.name ?? "the server" }),
    element("span", { className: "words", textContent: message.text }),
    element("time", { textContent: time })));
  $("talk").scrollTop = $("talk").scrollHeight;
}

// the socket

const known = new Map(); // subscription → how far we are: cursor, and the scope it is good for
const fresh = new Map(); // subscription → ids of the snapshot that is arriving

// With a cursor the server sends what we missed; else, or where that is not possible, a snapshot.
async function watch(live, subscription, options) {
  const { cursor, scope } = known.get(subscription) ?? {};
  const since = cursor ? { since: cursor, scope } : {};
  const reply = await live.request({ type: "subscribe", subscription, ...options, ...since });
  known.set(subscription, { cursor: reply.cursor, scope: reply.scope });
}

function onSnapshot({ subscription, documents, more }) {
  const [shown, show, drop] = subscription === "tasks"
    ? [tasks, showTask, dropTask] : [posts, showPost, dropPost];
  const ids = fresh.get(subscription) ?? new Set();
  for (const document of documents) {
    ids.add(document.id);
    show(document);
  }
  fresh.set(subscription, ids);
  if (more) return;
  for (const id of [...shown.keys()]) if (!ids.has(id)) drop(id);
  fresh.delete(subscription);
}

async function subscribe(live) {
  await watch(live, "tasks", { collection: "tasks", snapshot: true });
  await watchPosts(live);
  const room = await live.request({ type: "join", room: "chat-123" });
  $("people").textContent = `${room.participants} here when you came`;
}

function onEvent(frame) {
  for (const name of frame.subscriptions ?? [frame.subscription]) {
    if (frame.cursor && known.has(name)) known.get(name).cursor = frame.cursor;
  }
  if (frame.type === "snapshot") onSnapshot(frame);
  if (frame.type !== "event") return;
  if (frame.event === "broadcast") return said(frame);
  const { collection, event, document: changed, subscriptions } = frame;
  if (subscriptions.includes("drafts")) return dropPost(changed.id);
  if (collection === "tasks") event === "deleted" ? dropTask(changed.id) : showTask(changed, true);
  if (collection === "posts") event === "deleted" ? dropPost(changed.id) : showPost(changed, true);
}

function onState(state, detail = {}) {
  $("dot").dataset.state = state;
  const words = {
    connecting: "connecting…",
    live: detail.latency === undefined ? "live" : `live · ${Math.round(detail.latency)} ms`,
    lost: `lost, back in ${((detail.delay ?? 0) / 1000).toFixed(1)} s`,
    closed: `closed for good (${detail.code}); reload the page`,
  };
  $("state").textContent = words[state];
}

let frames = 0;
function onFrame(way, frame) {
  if (frame.type === "ping" || frame.type === "pong") return;
  $("frames").textContent = ++frames;
  const sign = way === "in" ? "↓" : "↑";
  $("log").prepend(element("li", { className: way },
    element("b", { textContent: sign }), element("code", { textContent: JSON.stringify(frame) })));
  while ($("log").children.length > 60) $("log").lastChild.remove();
}

const scheme = location.protocol === "https:" ? "wss" : "ws";
const live = new Live({
  url: `${scheme}://${location.host}/realtime`,
  ready: (socket) => subscribe(socket).catch((error) => error.code === "closed" || console.error(error)),
  event: onEvent,
  state: onState,
  frame: onFrame,
});

// what people do

function onSubmit(id, act) {
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    const input = event.target.querySelector("input");
    act(input.value.trim());
    input.value = "";
    input.focus();
  });
}
onSubmit("add-task", (title) => title && post("tasks", { title }));
onSubmit("add-post", (title) => title && post("posts", { title }));
onSubmit("say", (text) => text && live.send({ type: "broadcast", room: "chat-123", message: { text } }));
$("only-published").addEventListener("change", () => {
  known.delete("posts"); // another set: from its beginning
  watchPosts(live);
});

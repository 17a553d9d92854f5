// What every page needs: the client, the state of the line, requests, small building blocks.
import { Realtime } from "../django_cocobase_realtime/realtime.js";

export const $ = (id) => document.getElementById(id);
export const calm = matchMedia("(prefers-reduced-motion: reduce)");

export function element(name, props = {}, ...children) {
  const { aria = {}, data = {}, ...rest } = props;
  const made = Object.assign(document.createElement(name), rest);
  for (const [key, value] of Object.entries(aria)) made.setAttribute(`aria-${key}`, value);
  Object.assign(made.dataset, data);
  made.append(...children);
  return made;
}

export function button(text, label, act, props = {}) {
  const made = element("button", { type: "button", textContent: text, className: "quiet", ...props });
  if (label !== text) {
    made.title = label;
    made.setAttribute("aria-label", label);
  }
  made.addEventListener("click", act);
  return made;
}

let hiding;
export function complain(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => ($("toast").hidden = true), 6000);
}

// For those who do not see it happen.
export const announce = (text) => ($("news").textContent = text);

// Django's CSRF protection wants its cookie's value back.
export async function post(path, body = {}) {
  const token = document.cookie.match(/csrftoken=([^;]+)/)?.[1] ?? "";
  let answer;
  try {
    answer = await fetch(`/api/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRFToken": token },
      body: JSON.stringify(body),
    });
  } catch {
    return complain("The server does not answer. Try again in a moment.");
  }
  const reply = await answer.json().catch(() => ({}));
  if (answer.ok) return reply;
  if (answer.status === 404) complain("Somebody else has deleted it.");
  else complain(reply.error ?? `The server said ${answer.status}. Load the page again.`);
}

export function onSubmit(id, act) {
  $(id).addEventListener("submit", (event) => {
    event.preventDefault();
    const input = event.target.querySelector("input");
    const text = input.value.trim();
    if (text) act(text);
    input.value = "";
    input.focus();
  });
}

// Tokens expire: the client asks for a new one before.
export async function tokenFrom(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`No token: the server said ${answer.status}.`);
  return answer.text();
}

export function showStatus(db, dot, words) {
  let detail = {};
  // that there is no connection is shown anyway
  db.on("error", ({ code, message }) => code === "not_connected" || complain(message));
  const show = () => {
    const status = db.status === "live" && !navigator.onLine ? "offline" : db.status;
    dot.dataset.state = status;
    words.textContent = {
      idle: "connecting…",
      connecting: "connecting…",
      live: "live",
      offline: "no network",
      waiting: `lost, back in ${((detail.delay ?? 0) / 1000).toFixed(1)} s`,
      closed: `closed (${detail.code}); reload the page`,
    }[status];
  };
  db.on("status", (change) => {
    detail = change;
    if (change.status === "live") performance.mark("live");
    show();
  });
  for (const name of ["online", "offline"]) addEventListener(name, show);
  show();
}

export function flash(node) {
  node.classList.remove("flash");
  void node.offsetWidth;
  node.classList.add("flash");
  // else it begins again where the node is put elsewhere
  node.addEventListener("animationend", () => node.classList.remove("flash"), { once: true });
}

export const clockTime = (at) =>
  new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

// The page's own client: of the session, by the tag; or of a token.

const { token } = document.body.dataset;
export const db = token
  ? new Realtime({ url: "/realtime", token: () => tokenFrom(token) })
  : window.realtime;

function logFrame({ direction, frame }) {
  if (frame.type === "ping" || frame.type === "pong") return;
  $("frames").textContent = 1 + Number($("frames").textContent);
  const sign = element("b", { textContent: direction === "in" ? "↓" : "↑", className: direction });
  $("log").prepend(element("li", {}, sign, element("code", { textContent: JSON.stringify(frame) })));
  while ($("log").children.length > 60) $("log").lastChild.remove();
}

if (db) {
  showStatus(db, $("dot"), $("state"));
  const showLatency = (ms) => ($("latency").textContent = `${Math.max(1, Math.round(ms))} ms`);
  // a ping while the page is being built measures that
  const measure = async () => {
    const sent = performance.now();
    await db.request({ type: "ping" });
    showLatency(performance.now() - sent);
    if (!measured) db.on("latency", showLatency);
    measured = true;
  };
  let measured = false;
  db.on("status", ({ status }) => status === "live" && setTimeout(() => measure().catch(() => {}), 1500));
  db.on("frame", logFrame);
  let again = true;
  db.on("status", ({ status, code }) => {
    if (status === "live")
      for (const place of document.querySelectorAll("[data-me]")) place.textContent = db.user.name;
    // Who logs in to the admin becomes somebody else: the old session's socket is closed for
    // good, the new session's is not.
    if (code !== 4500 || !again) return;
    again = false;
    setTimeout(() => db.connect(), 500);
    setTimeout(() => (again = true), 10000);
  });
}

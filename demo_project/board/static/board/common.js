// The parts of every page: the client, the connection's state, requests, small building blocks.
import { Realtime } from "../django_cocobase_realtime/realtime.js";
import { logFrames } from "./frames.js";
import { $ } from "./elements.js";

export { $, button, element, flash } from "./elements.js";
export const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

let toastTimer;
export function showError(text) {
  $("toast").textContent = text;
  $("toast").hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("toast").hidden = true), 6000);
}

// For users of screen readers, who do not see the change.
export const announce = (text) => ($("news").textContent = text);

// Django's CSRF protection requires the value of its cookie in a header.
export async function post(path, body = {}) {
  const token = document.cookie.match(/csrftoken=([^;]+)/)?.[1] ?? "";
  let response;
  try {
    response = await fetch(`/api/${path}`, {
      method: "POST",
      headers: { "Content-Type": "application/json", "X-CSRFToken": token },
      body: JSON.stringify(body),
    });
  } catch {
    return showError("The server does not answer. Try again in a moment.");
  }
  const reply = await response.json().catch(() => ({}));
  if (response.ok) return reply;
  if (response.status === 404) showError("Someone else has deleted it.");
  else showError(reply.error ?? `The server answered ${response.status}. Load the page again.`);
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

// The client requests a new token before the old one expires.
export async function fetchToken(path) {
  const response = await fetch(path);
  if (!response.ok) throw new Error(`No token: the server answered ${response.status}.`);
  return response.text();
}

// A `.state` element: a dot, the status in words, the latency.
export function showStatus(db, place) {
  const [dot, words, latency] = ["dot", "words", "latency"].map((name) => place.querySelector(`.${name}`));
  let detail = {};
  // the status shows that there is no connection
  db.on("error", ({ code, message }) => code === "not_connected" || showError(message));
  const show = () => {
    const status = db.status === "live" && !navigator.onLine ? "offline" : db.status;
    dot.dataset.state = status;
    words.textContent = {
      idle: "connecting…",
      connecting: "connecting…",
      live: "live",
      offline: "no network",
      waiting: `disconnected, retry in ${((detail.delay ?? 0) / 1000).toFixed(1)} s`,
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
  if (latency) measureLatency(db, (ms) => (latency.textContent = `${Math.max(1, Math.round(ms))} ms`));
}

function measureLatency(db, show) {
  // the first ping is sent later, because building the page would delay it
  let isMeasured = false;
  const measure = async () => {
    const sent = performance.now();
    await db.request({ type: "ping" });
    show(performance.now() - sent);
    if (!isMeasured) db.on("latency", show);
    isMeasured = true;
  };
  db.on("status", ({ status }) => status === "live" && setTimeout(() => measure().catch(() => {}), 1500));
}

export const clockTime = (at) =>
  new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

// The page's own client. It is authenticated by the session (with the template tag) or by a token.
const { token } = document.body.dataset;
export const db = token
  ? new Realtime({ url: "/realtime", token: () => fetchToken(token) })
  : window.realtime;

if (db) {
  showStatus(db, document.querySelector(".state"));
  logFrames(db);
  let mayReturn = true;
  db.on("status", ({ status, code }) => {
    if (status === "live")
      for (const place of document.querySelectorAll("[data-me]")) place.textContent = db.user.name;
    // A visitor who logs in to the admin gets another session. The server closes the connection
    // of the old one for good, so connect again with the new one.
    if (code !== 4500 || !mayReturn) return;
    mayReturn = false;
    setTimeout(() => db.connect(), 500);
    setTimeout(() => (mayReturn = true), 10000);
  });
}

// A link to the folded code opens it.
const code = $("code");
const openCode = () => {
  if (location.hash === "#code") code.open = true;
};
if (code) {
  addEventListener("hashchange", openCode);
  openCode();
}

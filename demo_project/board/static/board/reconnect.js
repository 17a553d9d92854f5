// Each change adds one to a number, so a page that received each number of a run missed nothing.
import { $, db, element, post } from "./common.js";

// The current run: its first and last number, the last number made, and how each arrived.
let run = null;
let joining = null;
const watching = db.watchCollection("counters", onEvent, { filters: { name: "reconnect" } });

function begin({ first, last }) {
  run = {
    first,
    last,
    made: first - 1,
    received: new Map(), // number → "live" | "late"
    duplicates: 0,
    began: performance.now(),
    wasDisconnected: false,
    resumed: null,
    isOver: false,
  };
  showSquares(last - first + 1);
  $("steps").replaceChildren();
  $("verdict").textContent = "";
  step("the changes start");
  $("start").disabled = true;
  pollState(run);
}

function showSquares(count) {
  $("squares").replaceChildren(...Array.from({ length: count }, () => element("li")));
}

function step(text) {
  const at = ((performance.now() - run.began) / 1000).toFixed(1);
  $("steps").append(element("li", {}, element("span", { className: "muted", textContent: `${at} s` }), element("span", { textContent: text })));
}

// How many changes were made is requested over HTTP, which the outage does not affect.
async function fetchState() {
  return (await fetch("/api/reconnect/state")).json();
}

async function pollState(current) {
  while (run === current) {
    try {
      const { first, last, made } = await fetchState();
      if (last === current.last) current.made = Math.max(current.made, first + made - 1);
      else if (last < current.last) {
        current.last = current.made;
        step("the server was restarted; there are no more changes");
      }
    } catch {
      // the server does not answer at the moment; poll again
    }
    if (run !== current) return;
    show();
    if (run.isOver) return;
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

async function onEvent({ data: { number }, replayed }) {
  if (!run || number > run.last) {
    // another window started a run; count from the first number that this one received
    joining ??= fetchState().then((other) => {
      joining = null;
      if (!run || other.last > run.last) begin({ ...other, first: Math.max(other.first, number) });
    });
    await joining;
  }
  if (number < run.first) return;
  if (run.received.has(number)) run.duplicates++;
  else run.received.set(number, replayed ? "late" : "live");
  run.made = Math.max(run.made, number);
  show();
}

db.on("status", ({ status, delay }) => {
  if (!run || run.isOver) return;
  if (status === "waiting") {
    if (!run.wasDisconnected) step("disconnected");
    run.wasDisconnected = true;
    run.resumed = null;
    step(delay < 50 ? "reconnecting at once" : `next attempt in ${(delay / 1000).toFixed(1)} s`);
  }
  if (status === "live") step("connected again");
});

db.on("frame", ({ direction, frame }) => {
  if (!run || direction !== "in" || frame.type !== "subscribed" || !("resumed" in frame)) return;
  run.resumed = frame.resumed;
  step(frame.resumed ? "resumed after the last received change" : `not resumed: ${frame.resync.reason}`);
});

function show() {
  const { first, last, received, duplicates, wasDisconnected, resumed } = run;
  const made = run.made - first + 1;
  [...$("squares").children].forEach((square, index) => {
    square.className = received.get(first + index) ?? (index < made ? "made" : "");
  });
  const late = [...received.values()].filter((how) => how === "late").length;
  $("made").textContent = made;
  $("received").textContent = received.size;
  $("missing").textContent = made - received.size;
  $("twice").textContent = duplicates;
  $("resumed").textContent = resumed === null ? (wasDisconnected ? "…" : "–") : resumed ? "yes" : "no";
  const all = last - first + 1;
  if (run.isOver || received.size < all || (wasDisconnected && resumed === null)) return;
  run.isOver = true;
  $("start").disabled = false;
  const missed = wasDisconnected
    ? `${late} of them were made while this page was disconnected.`
    : "This page was not disconnected.";
  step("all changes have arrived");
  $("verdict").textContent =
    `Nothing was lost: ${made} changes made, ${received.size} received, ${duplicates} twice. ${missed}`;
}

showSquares(Number($("squares").dataset.changes)); // empty ones, for the run to fill

$("start").addEventListener("click", async () => {
  $("start").disabled = true;
  await watching.ready;
  const started = await post("reconnect");
  if (!started) $("start").disabled = false;
  else if (run?.last !== started.last) begin(started);
});

// Each change counts one up: whoever has all numbers of a run has missed nothing.
import { $, db, element, post } from "./common.js";

let run = null; // first, last, made: numbers; got: number → "live" | "late"
let learning = null;
const watching = db.watchCollection("beats", onEvent, { filters: { name: "outage" } });

function begin({ first, last }) {
  const began = performance.now();
  run = { first, last, made: first - 1, got: new Map(), twice: 0, began, resumed: null, cut: false };
  lay(last - first + 1);
  $("steps").replaceChildren();
  $("verdict").textContent = "";
  step("changes begin");
  $("pull").disabled = true;
  poll(run);
}

function lay(count) {
  $("squares").replaceChildren(...Array.from({ length: count }, () => element("li")));
}

function step(text) {
  const at = ((performance.now() - run.began) / 1000).toFixed(1);
  $("steps").append(element("li", {}, element("span", { className: "muted", textContent: `${at} s` }), ` ${text}`));
}

// How many were made is asked by plain HTTP.
async function state() {
  return (await fetch("/api/plug/state")).json();
}

async function poll(mine) {
  while (run === mine) {
    try {
      const { first, last, made } = await state();
      if (last === mine.last) mine.made = Math.max(mine.made, first + made - 1);
      else if (last < mine.last) {
        mine.last = mine.made;
        step("the server was started anew, and makes no more");
      }
    } catch {
      // the server itself is away; it goes on when it is back
    }
    if (run !== mine) return;
    show();
    if (run.over) return;
    await new Promise((wake) => setTimeout(wake, 250));
  }
}

async function onEvent({ data: { number }, replayed }) {
  if (!run || number > run.last) {
    // another window began one; whoever comes amid it counts from there
    learning ??= state().then((other) => {
      learning = null;
      if (!run || other.last > run.last) begin({ ...other, first: Math.max(other.first, number) });
    });
    await learning;
  }
  if (number < run.first) return;
  if (run.got.has(number)) run.twice++;
  else run.got.set(number, replayed ? "late" : "live");
  run.made = Math.max(run.made, number);
  show();
}

db.on("status", ({ status, delay }) => {
  if (!run || run.over) return;
  if (status === "waiting" && !run.cut) step("the socket is gone");
  if (status === "waiting") {
    run.cut = true;
    run.resumed = null;
    step(delay < 50 ? "trying at once" : `next try in ${(delay / 1000).toFixed(1)} s`);
  }
  if (status === "live") step("the socket is back");
});

db.on("frame", ({ direction, frame }) => {
  if (!run || direction !== "in" || frame.type !== "subscribed" || !("resumed" in frame)) return;
  run.resumed = frame.resumed;
  step(frame.resumed ? "resumed where it was" : `not resumed: ${frame.resync.reason}`);
});

function show() {
  const { first, last, got, twice, cut, resumed } = run;
  const made = run.made - first + 1;
  [...$("squares").children].forEach((square, place) => {
    square.className = got.get(first + place) ?? (place < made ? "made" : "");
  });
  const late = [...got.values()].filter((how) => how === "late").length;
  $("made").textContent = made;
  $("received").textContent = got.size;
  $("missing").textContent = made - got.size;
  $("twice").textContent = twice;
  $("resumed").textContent = resumed === null ? (cut ? "…" : "–") : resumed ? "yes" : "no";
  const all = last - first + 1;
  if (run.over || got.size < all || (cut && resumed === null)) return;
  run.over = true;
  $("pull").disabled = false;
  const missed = cut ? `${late} of them were made while the socket was gone.` : "This window was not cut.";
  step("all are here");
  $("verdict").textContent = `Nothing was lost: ${made} changes made, ${got.size} received, ${twice} twice. ${missed}`;
}

lay(Number($("squares").dataset.changes)); // what a run will fill

$("pull").addEventListener("click", async () => {
  $("pull").disabled = true;
  await watching.ready;
  const begun = await post("plug");
  if (!begun) $("pull").disabled = false;
  else if (run?.last !== begun.last) begin(begun);
});

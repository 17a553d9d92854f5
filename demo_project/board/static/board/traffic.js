// How many events a second reach this page, and how long they are under way.
import { Bars, Minute, Spans, quantile } from "./chart.js";
import { $, db, post } from "./common.js";

const arrived = new Minute();
const latencies = new Minute();
const bars = new Bars($("events"));
const spans = new Spans($("latencies"));
let total = 0;
let ahead = null; // the server's clock before ours, in ms

// The quickest of a few answers tells best.
async function readClock() {
  let best = Infinity;
  for (let turn = 0; turn < 4; turn++) {
    const asked = Date.now();
    const { now, rate } = await (await fetch("/api/clock")).json();
    const took = Date.now() - asked;
    if (took < best) [best, ahead] = [took, now - (asked + took / 2)];
    showRate(rate);
  }
}

function onEvent({ at, replayed }) {
  if (!total++) performance.mark("first-event");
  arrived.add(0);
  if (ahead !== null && !replayed)
    latencies.add(Math.max(0, Date.now() + ahead - Date.parse(at)));
}

function draw() {
  const seconds = arrived.seconds();
  const times = latencies.seconds();
  bars.draw(seconds);
  spans.draw(times);
  const recent = times.slice(-10).flat().sort((a, b) => a - b);
  const ms = (value) => (value === undefined ? "–" : `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`);
  $("rate").textContent = seconds.at(-1).length;
  $("median").textContent = ms(quantile(recent, 0.5));
  $("most").textContent = ms(quantile(recent, 0.95));
  $("total").textContent = total;
}

const buttons = document.querySelectorAll("[data-rate]");
function showRate(rate) {
  for (const each of buttons) each.setAttribute("aria-pressed", Number(each.dataset.rate) === rate);
}
for (const each of buttons)
  each.addEventListener("click", () => post("traffic", { rate: Number(each.dataset.rate) }));

db.watchCollection("beats", onEvent, { filters: { name: "traffic" } });
db.watchCollection("tasks", onEvent);
// the server (it has no sender) says here when the rate changes
db.room("traffic", { presence: false }).on("message", ({ message, sender }) => {
  if (sender === null) showRate(message.rate);
});
readClock().catch(() => {});
draw();
setInterval(draw, 500);

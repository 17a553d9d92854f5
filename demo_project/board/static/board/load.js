// How many events per second this page receives, and how long each was on its way.
import { Bars, Minute, Spans, quantile } from "./chart.js";
import { $, db, post, reducedMotion } from "./common.js";

const arrivals = new Minute();
const latencies = new Minute();
const bars = new Bars($("events"));
const spans = new Spans($("latencies"));
let total = 0;
let clockOffset = null; // how far the server's clock is ahead of this page's, in ms

// Compare the clocks a few times; the answer that took the shortest time is the most exact.
async function readClock() {
  let shortest = Infinity;
  let current;
  for (let attempt = 0; attempt < 4; attempt++) {
    const sent = Date.now();
    const { now, rate } = await (await fetch("/api/clock")).json();
    const took = Date.now() - sent;
    if (took < shortest) [shortest, clockOffset] = [took, now - (sent + took / 2)];
    showRate((current = rate));
  }
  return current;
}

function onEvent({ at, replayed }) {
  if (!total++) performance.mark("first-event");
  arrivals.add(0);
  if (clockOffset !== null && !replayed)
    latencies.add(Math.max(0, Date.now() + clockOffset - Date.parse(at)));
}

function draw() {
  const seconds = arrivals.seconds();
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
  each.addEventListener("click", () => post("load", { rate: Number(each.dataset.rate) }));

db.watchCollection("counters", onEvent, { filters: { name: "load" } });
db.watchCollection("tasks", onEvent);
// the server broadcasts the rate to this room when it changes; its messages have no sender
db.room("load", { presence: false }).on("message", ({ message, sender }) => {
  if (sender === null) showRate(message.rate);
});
readClock().then(
  // a short run, so that the charts of a page that was just opened are not empty
  (rate) => rate || reducedMotion.matches || post("load", { rate: 10, short: true }),
  () => {},
);
draw();
setInterval(draw, 500);

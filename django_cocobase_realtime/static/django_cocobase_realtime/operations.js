// The admin's pages about connections: shows the totals that the server sends to the room
// "$operations", and loads the table again when they arrive.

const state = document.querySelector(".operations-status");
const label = document.getElementById("operations-status");
const totals = document.getElementById("operations-totals");
const realtime = globalThis.realtime;
let loading = false;

const show = (name, text) => {
  state.dataset.state = name;
  if (label.textContent !== text) label.textContent = text;
};

async function refresh() {
  if (loading || document.hidden) return;
  loading = true;
  try {
    const response = await fetch(location.href, { credentials: "same-origin" });
    // a redirection leads to the login
    if (!response.ok || response.redirected) return show("off", "Not live: load the page again");
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const loaded = page.getElementById("operations-content");
    if (loaded) replace(document.getElementById("operations-content"), loaded);
    show("live", "Live");
  } catch {
    show("off", "Not live: the server does not answer");
  } finally {
    loading = false;
  }
}

function replace(old, loaded) {
  const html = (element) => element.innerHTML.replace(/name="csrfmiddlewaretoken" value="\w*"/g, "");
  if (html(old) === html(loaded)) return;
  const focused = old.contains(document.activeElement) ? document.activeElement.id : "";
  const table = old.querySelector(".operations-table");
  const left = table ? table.scrollLeft : 0;
  old.replaceWith(loaded);
  if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
  const now = loaded.querySelector(".operations-table");
  if (now) now.scrollLeft = left;
}

function showTotals(servers) {
  const sum = (name) => servers.reduce((total, server) => total + server[name], 0);
  const count = (number, noun) => `${number.toLocaleString()} ${noun}${number === 1 ? "" : "s"}`;
  totals.textContent = [
    count(servers.length, "process").replace("processs", "processes"),
    count(sum("connections"), "connection"),
    count(sum("subscriptions"), "subscription"),
    count(sum("rooms"), "room"),
    `${Math.ceil(sum("queue_bytes") / 1024).toLocaleString()} KiB in queues`,
  ].join(" · ");
}

const room = realtime.room("$operations", { presence: false });
room.on("message", ({ message }) => {
  showTotals(message.servers);
  refresh();
});
realtime.on("status", ({ status }) => {
  if (status !== "live") show("off", "Not live");
});
realtime.on("error", (error) => show("off", `Not live: ${error.message}`));
document.addEventListener("visibilitychange", refresh);

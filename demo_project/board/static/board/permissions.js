// Three clients on one page, each with its own token. Each shows only what it received.
import { Realtime } from "../django_cocobase_realtime/realtime.js";
import { $, button, element, fetchToken, flash, onSubmit, post, showStatus } from "./common.js";

const MAX_EVENTS = 20;
const panes = [...document.querySelectorAll("[data-who]")];
const couriers = panes.filter((pane) => pane.dataset.id);
const capitalize = (who) => who[0].toUpperCase() + who.slice(1);

function ownerSelect(id, data) {
  const select = element("select", { aria: { label: `Owner of ${data.title}` } },
    element("option", { value: "", textContent: "no owner" }),
    ...couriers.map(({ dataset: { who } }) => element("option", { value: who, textContent: capitalize(who) })));
  select.value = couriers.find((pane) => pane.dataset.id === data.owner)?.dataset.who ?? "";
  select.addEventListener("change", () =>
    post(`parcels/${id}/hand-over`, { owner: select.value || null }));
  return select;
}

function newItem({ id, data }, isCourier) {
  const title = element("span", { textContent: data.title });
  if (isCourier) return element("li", {}, title);
  return element("li", {}, title, element("span", { className: "tools" }, ownerSelect(id, data),
    button("×", `Delete: ${data.title}`, () => post(`parcels/${id}/delete`))));
}

function eventsOf(frame) {
  if (frame.type === "events") return frame.events.flatMap(eventsOf);
  return frame.type === "event" ? [frame] : [];
}

function logEvents(db, list) {
  const log = (name, text) => {
    list.prepend(element("li", {}, element("b", { textContent: name, className: name }), ` ${text}`));
    while (list.children.length > MAX_EVENTS) list.lastChild.remove();
  };
  db.on("frame", ({ direction, frame }) => {
    if (direction !== "in") return;
    if (frame.type === "snapshot") log("snapshot", frame.documents.map(({ data }) => data.title).join(", "));
    for (const { event, document } of eventsOf(frame))
      log(event, document.data ? document.data.title : `parcel ${document.id} (only its id)`);
  });
}

function openPane(pane) {
  const isCourier = Boolean(pane.dataset.id);
  const list = pane.querySelector(".parcels");
  const db = new Realtime({ url: "/realtime", token: () => fetchToken(`/token/${pane.dataset.who}`) });
  showStatus(db, pane.querySelector(".state"));
  logEvents(db, pane.querySelector(".received"));

  const items = new Map(); // id → { document, item }
  let isFilled = false;
  const parcels = db.live("parcels", { order: "title" });
  parcels.subscribe((documents) => {
    const focused = document.activeElement?.closest?.("li");
    const nodes = documents.map((each) => {
      const old = items.get(each.id);
      if (old?.document === each) return old.item;
      const item = newItem(each, isCourier);
      if (isFilled) flash(item);
      if (old && old.item === focused)
        queueMicrotask(() => item.querySelector("select")?.focus());
      items.set(each.id, { document: each, item });
      return item;
    });
    const ids = new Set(documents.map(({ id }) => id));
    for (const id of items.keys()) if (!ids.has(id)) items.delete(id);
    list.replaceChildren(...nodes);
  });
  return parcels.ready.then(() => (isFilled = true));
}

Promise.all(panes.map(openPane)).then(() => (document.body.dataset.ready = ""));
onSubmit("add-parcel", (title) => post("parcels", { title }));

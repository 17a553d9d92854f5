// Three clients in one page, each with a token of its own. What they show is what each was sent.
import { Realtime } from "../django_cocobase_realtime/realtime.js";
import { $, button, element, flash, onSubmit, post, showStatus, tokenFrom } from "./common.js";

const panes = [...document.querySelectorAll("[data-who]")];
const couriers = panes.filter((pane) => pane.dataset.id);

function ownerChoice(id, data) {
  const choice = element("select", { aria: { label: `Owner of ${data.title}` } },
    element("option", { value: "", textContent: "nobody's" }),
    ...couriers.map(({ dataset: { who } }) => element("option", { value: who, textContent: `${name(who)}'s` })));
  choice.value = couriers.find((pane) => pane.dataset.id === data.owner)?.dataset.who ?? "";
  choice.addEventListener("change", () =>
    post(`parcels/${id}/hand-over`, { owner: choice.value || null }));
  return choice;
}

const name = (who) => who[0].toUpperCase() + who.slice(1);

function row({ id, data }, isCourier) {
  const title = element("span", { textContent: data.title });
  if (isCourier) return element("li", {}, title);
  return element("li", {}, title, element("span", { className: "tools" }, ownerChoice(id, data),
    button("×", `Delete: ${data.title}`, () => post(`parcels/${id}/delete`))));
}

function changes(frame) {
  if (frame.type === "events") return frame.events.flatMap(changes);
  return frame.type === "event" ? [frame] : [];
}

function open(pane) {
  const isCourier = Boolean(pane.dataset.id);
  const list = pane.querySelector(".parcels");
  const heard = pane.querySelector(".heard");
  const db = new Realtime({ url: "/realtime", token: () => tokenFrom(`/token/${pane.dataset.who}`) });
  showStatus(db, pane.querySelector(".dot"), pane.querySelector(".words"));
  db.on("frame", ({ direction, frame }) => {
    if (!heard || direction !== "in") return;
    for (const { event, document } of changes(frame)) {
      const what = document.data ? document.data.title : `parcel ${document.id}, by its number alone`;
      heard.prepend(element("li", {}, element("b", { textContent: event, className: event }), ` ${what}`));
    }
    while (heard.children.length > 20) heard.lastChild.remove();
  });

  const rows = new Map(); // id → { document, item }
  let filled = false;
  const live = db.live("parcels", { order: "title" });
  live.subscribe((documents) => {
    const focused = document.activeElement?.closest?.("li");
    const items = documents.map((each) => {
      const old = rows.get(each.id);
      if (old?.document === each) return old.item;
      const item = row(each, isCourier);
      if (filled) flash(item);
      if (old && old.item === focused)
        queueMicrotask(() => item.querySelector("select")?.focus());
      rows.set(each.id, { document: each, item });
      return item;
    });
    const here = new Set(documents.map(({ id }) => id));
    for (const id of rows.keys()) if (!here.has(id)) rows.delete(id);
    list.replaceChildren(...items);
  });
  return live.ready.then(() => (filled = true));
}

Promise.all(panes.map(open)).then(() => (document.body.dataset.ready = ""));
onSubmit("add-parcel", (title) => post("parcels", { title }));

// Three clients on one page, each with its own token. Each shows only what it received.
import { Realtime } from "../django_cocobase_realtime/realtime.js";
import { $, button, element, fetchToken, flash, onSubmit, post, showStatus } from "./common.js";

const MAX_EVENTS = 20;
const panes = [...document.querySelectorAll("[data-who]")];
const couriers = panes.filter((pane) => pane.dataset.id);
const teamNames = new Map([...document.querySelectorAll("[data-team]")].map(
  ({ dataset: { team }, textContent }) => [team, textContent]));
const byTitle = (one, other) => one.data.title.localeCompare(other.data.title);
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
  const title = element("span", { textContent: `${data.title} ` },
    element("small", { className: "muted", textContent: teamNames.get(data.team) ?? "no team" }));
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
  // a membership has changed, and with it what the user may see
  const logMove = ({ entered, left }) => {
    if (entered.length) log("moved", `in: ${entered.map(({ data }) => data.title).join(", ")}`);
    if (left.length) log("moved", `out: ${left.map((id) => `parcel ${id}`).join(", ")} (ids only)`);
  };
  db.on("frame", ({ direction, frame }) => {
    if (direction !== "in") return;
    const isOfParcels = frame.subscription?.startsWith("parcels");
    if (frame.type === "moved" && isOfParcels) logMove(frame);
    if (frame.type === "snapshot" && isOfParcels) log("snapshot", frame.documents.map(({ data }) => data.title).join(", "));
    for (const { event, document, collection } of eventsOf(frame))
      if (collection === "parcels") log(event, document.data ? document.data.title : `parcel ${document.id} (only its id)`);
  });
}

// Show the teams of a user. Those of couriers are buttons.
function watchTeams(db, pane) {
  const buttons = [...pane.querySelectorAll("[data-team]")];
  const isPressed = (node) => node.getAttribute("aria-pressed") === "true";
  const names = pane.querySelector(".names");
  db.live("memberships", { filters: { user: db.user.id } }).subscribe((memberships) => {
    const joined = new Set(memberships.map(({ data }) => data.team));
    for (const node of buttons) node.setAttribute("aria-pressed", joined.has(node.dataset.team));
    if (names) names.textContent = [...joined].map((id) => teamNames.get(id)).sort().join(", ");
  });
  for (const node of buttons)
    node.addEventListener("click", () =>
      post(`teams/${node.dataset.team}/membership`, { courier: pane.dataset.who, joins: !isPressed(node) }));
}

function openPane(pane) {
  const isCourier = Boolean(pane.dataset.id);
  const list = pane.querySelector(".parcels");
  const db = new Realtime({ url: "/realtime", token: () => fetchToken(`/token/${pane.dataset.who}`) });
  showStatus(db, pane.querySelector(".state"));
  logEvents(db, pane.querySelector(".received"));

  const items = new Map(); // id → { document, item }
  let isFilled = false;
  const parcels = db.live("parcels");
  parcels.subscribe((documents) => {
    const focused = document.activeElement?.closest?.("li");
    const nodes = [...documents].sort(byTitle).map((each) => {
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
  return parcels.ready.then(() => {
    isFilled = true;
    watchTeams(db, pane);
  });
}

Promise.all(panes.map(openPane)).then(() => (document.body.dataset.ready = ""));
onSubmit("add-parcel", (title) => post("parcels", { title, team: $("parcel-team").value }));

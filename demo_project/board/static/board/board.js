// The board: three live sets, one a column. A card that moves leaves one and enters another.
import { $, announce, button, calm, db, element, flash, onSubmit, post } from "./common.js";

const columns = [...document.querySelectorAll("[data-column]")].map((section) => ({
  section,
  name: section.dataset.column,
  label: section.querySelector("h2 span").textContent,
  list: section.querySelector("ul"),
  count: section.querySelector("[data-count]"),
}));
const named = (name) => columns.find((each) => each.name === name);
const cards = new Map(); // id → element, the same one wherever the card goes
const gone = new Map(); // id → where it was, for a card that is between two columns
const FORGET = 600; // ms

function move(id, step) {
  const at = columns.indexOf(named(cards.get(id).dataset.at));
  const to = columns[at + step];
  if (to) moveTo(id, to.name);
}

function moveTo(id, column) {
  if (cards.get(id)?.dataset.at !== column) post(`tasks/${id}/move`, { column });
}

function newCard(id) {
  const left = button("←", "", () => move(id, -1), { data: { act: "left" } });
  const right = button("→", "", () => move(id, 1), { data: { act: "right" } });
  const remove = button("×", "", () => post(`tasks/${id}/delete`), { data: { act: "delete" } });
  const card = element("li", { className: "card", draggable: true, data: { id } },
    element("p", {}),
    element("div", { className: "foot" }, element("span", { className: "who" }),
      element("span", { className: "tools" }, left, right, remove)));
  card.addEventListener("keydown", ({ key }) => {
    if (key === "ArrowLeft") move(id, -1);
    if (key === "ArrowRight") move(id, 1);
  });
  card.addEventListener("dragstart", (event) => {
    event.dataTransfer.setData("text/plain", id);
    event.dataTransfer.effectAllowed = "move";
    card.classList.add("dragged");
  });
  card.addEventListener("dragend", () => card.classList.remove("dragged"));
  return card;
}

function fill(card, { data }, column) {
  const at = columns.indexOf(column);
  card.dataset.at = column.name;
  card.querySelector("p").textContent = data.title;
  card.querySelector(".who").textContent = data.assignee;
  for (const tool of card.querySelectorAll("button")) {
    const to = { left: columns[at - 1], right: columns[at + 1] }[tool.dataset.act];
    const verb = { left: "Move left", right: "Move right", delete: "Delete" }[tool.dataset.act];
    tool.setAttribute("aria-label", `${verb}: ${data.title}`);
    tool.title = to ? `To ${to.label}` : verb;
    if (tool.dataset.act !== "delete") tool.disabled = !to;
  }
}

// Between the frame that takes a card out and the one that brings it in, it may be in both
// columns or in none; the later change counts.
function whereabouts() {
  const found = new Map();
  for (const column of columns) {
    for (const document of column.live.documents) {
      const other = found.get(document.id);
      if (!other || other.document.data.moved_at < document.data.moved_at)
        found.set(document.id, { document, column });
    }
  }
  return found;
}

const shown = new Map(); // id → the document that the card shows

function render() {
  drawing = 0;
  const before = new Map(cards.size ? [...cards].map(([id, card]) => [id, card.getBoundingClientRect()]) : []);
  const focused = document.activeElement;
  const found = whereabouts();
  const changed = [];

  for (const [id, card] of cards) {
    if (found.has(id)) continue;
    gone.set(id, { rect: before.get(id), at: performance.now(), from: card.dataset.at });
    card.remove();
    cards.delete(id);
    shown.delete(id);
  }
  // out of the old columns first, so that the cards that stay need not be moved
  for (const [id, { column }] of found)
    if (cards.get(id)?.parentElement !== column.list) cards.get(id)?.remove();
  for (const column of columns) {
    const wanted = column.live.documents.filter(({ id }) => found.get(id).column === column);
    wanted.forEach((document, place) => {
      const card = cards.get(document.id) ?? newCard(document.id);
      const was = card.dataset.at ?? gone.get(document.id)?.from;
      if (shown.get(document.id) !== document) {
        fill(card, document, column);
        changed.push({ card, document, column, was });
      }
      cards.set(document.id, card);
      shown.set(document.id, document);
      if (column.list.children[place] !== card)
        column.list.insertBefore(card, column.list.children[place] ?? null);
    });
    column.count.textContent = wanted.length;
  }
  if (focused !== document.activeElement && focused.isConnected) {
    const other = focused.closest(".card")?.querySelector("button:enabled");
    (focused.disabled ? other : focused)?.focus({ preventScroll: true });
  }
  if (ready) tell(changed);
  animate(before);
}

function tell(changed) {
  for (const { card, document, column, was } of changed) {
    flash(card);
    const { title, assignee } = document.data;
    if (was !== column.name && assignee !== db.user?.name)
      announce(`${title}: ${was ? "moved to" : "new in"} ${column.label}, by ${assignee}`);
  }
}

// First where it was, last where it is: the card glides from one to the other.
function animate(before) {
  const now = performance.now();
  for (const [id, { at }] of gone) if (now - at > FORGET) gone.delete(id);
  if (calm.matches || document.hidden || !ready) return;
  for (const [id, card] of cards) {
    const from = before.get(id) ?? gone.get(id)?.rect;
    gone.delete(id);
    if (!from) {
      card.animate([{ opacity: 0, transform: "scale(.96)" }, {}], { duration: 250, easing: "ease-out" });
      continue;
    }
    const running = card.getAnimations().filter((each) => each.id === "glide");
    running.forEach((each) => each.cancel());
    const to = card.getBoundingClientRect();
    const [x, y] = [from.left - to.left, from.top - to.top];
    if (Math.abs(x) + Math.abs(y) < 1) continue;
    const zIndex = Math.abs(x) > 1 ? 3 : 1; // above those that only make room
    card.animate([{ transform: `translate(${x}px, ${y}px)`, zIndex }, { transform: "none", zIndex }],
      { id: "glide", duration: 420, easing: "cubic-bezier(.3, .8, .3, 1)" });
  }
}

let ready = false; // the first fill is not news
let drawing = 0;
function draw() {
  if (document.hidden) render(); // no frame is drawn there
  else drawing ||= requestAnimationFrame(render);
}

const filtersOf = ({ name }) => ({
  column: name,
  ...($("words").value.trim() && { title_contains: $("words").value.trim() }),
  ...($("mine").checked && { assignee: db.user?.name ?? "" }),
});

for (const column of columns) {
  const { section, name } = column;
  column.live = db.live("tasks", { filters: filtersOf(column), order: "-moved_at" });
  section.addEventListener("dragover", (event) => {
    event.preventDefault();
    event.dataTransfer.dropEffect = "move";
    section.classList.add("over");
  });
  section.addEventListener("dragleave", () => section.classList.remove("over"));
  section.addEventListener("drop", (event) => {
    event.preventDefault();
    section.classList.remove("over");
    moveTo(event.dataTransfer.getData("text/plain"), name);
  });
}
for (const { live } of columns) live.subscribe(draw);
Promise.all(columns.map(({ live }) => live.ready)).then(() => {
  performance.mark("filled");
  // after the first fill is drawn
  setTimeout(() => {
    ready = true;
    document.body.dataset.ready = "";
  }, 50);
});

let typing;
function refilter() {
  clearTimeout(typing);
  typing = setTimeout(() => {
    for (const column of columns) column.live.update({ filters: filtersOf(column) }).catch(() => {});
  }, 150);
}
$("words").addEventListener("input", refilter);
$("mine").addEventListener("change", refilter);
$("filter").addEventListener("submit", (event) => event.preventDefault());
onSubmit("add-task", (title) => post("tasks", { title }));

// notices

const published = () => ({ filters: $("drafts").checked ? {} : { status: "published" } });
const posts = db.live("posts", { ...published(), order: "-created_at", limit: 4 });
const items = new Map();

function showPost({ id, data }) {
  const draft = data.status !== "published";
  const verb = draft ? "Publish" : "Withdraw";
  return element("li", { className: draft ? "draft" : "" }, element("span", { textContent: data.title }),
    button(verb, `${verb}: ${data.title}`, () => post(`posts/${id}/toggle`)));
}

posts.subscribe((documents) => {
  for (const each of documents) if (!items.has(each)) items.set(each, showPost(each));
  for (const each of items.keys()) if (!documents.includes(each)) items.delete(each);
  $("posts").replaceChildren(...documents.map((each) => items.get(each)));
});
$("drafts").addEventListener("change", () => posts.update(published()));
onSubmit("add-post", (title) => post("posts", { title }));

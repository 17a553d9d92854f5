// The cards as one visitor sees them: three live lists, one per column.
import { announce, button, element, flash, post, reducedMotion } from "./common.js";

const GONE_MS = 600; // how long the place of a removed card is kept, should it enter another column
const FILTER_DELAY_MS = 150; // after a key press

const assigneeOf = (data) => data["assignee.username"] ?? "Unassigned";

export class CardBoard {
  // the cards' elements by id; a card keeps its element in whatever column it is
  #cards = new Map();
  // the documents that the elements show, by id
  #shown = new Map();
  // where removed cards were, by id, for cards that are between two columns
  #gone = new Map();
  // changes before the first display are no news
  #isReady = false;
  #frameRequest = 0;
  #filterTimer;

  // `root` contains the columns; `actor` is added to the requests that change cards.
  constructor(root, db, { actor = {}, announces = false } = {}) {
    Object.assign(this, { root, db, actor, announces });
    this.words = root.querySelector(".words-filter");
    this.mine = root.querySelector(".mine-filter");
    this.columns = [...root.querySelectorAll("[data-column]")].map((place) => ({
      place,
      name: place.dataset.column,
      label: place.querySelector("h3 span").textContent,
      list: place.querySelector("ul"),
      count: place.querySelector("[data-count]"),
    }));
    for (const column of this.columns) {
      this.#watch(column);
      this.#acceptDrops(column);
    }
    if (this.words) this.#listenToFilter();
    const lists = this.columns.map(({ cards }) => cards.ready);
    // resolves after the first display
    this.ready = Promise.all(lists)
      .then(() => new Promise((resolve) => setTimeout(resolve, 50)))
      .then(() => {
        this.#isReady = true;
        this.#showEmptyState();
      });
  }

  #watch(column) {
    const filters = this.#filters(column);
    column.cards = this.db.live("tasks", { filters, order: "-moved_at" });
    column.cards.subscribe(() => this.#requestRender());
  }

  // filter

  #filters({ name }) {
    const words = this.words?.value.trim();
    return {
      column: name,
      ...(words && { title_contains: words }),
      ...(this.mine?.checked && { assignee: Number(this.db.user?.id) }),
    };
  }

  #listenToFilter() {
    const update = () => {
      const updates = this.columns.map((column) => column.cards.update({ filters: this.#filters(column) }));
      Promise.all(updates).then(() => this.#showEmptyState()).catch(() => {});
    };
    const updateSoon = () => {
      clearTimeout(this.#filterTimer);
      this.#filterTimer = setTimeout(update, FILTER_DELAY_MS);
    };
    this.words.addEventListener("input", updateSoon);
    this.mine.addEventListener("change", updateSoon);
    this.words.form.addEventListener("submit", (event) => event.preventDefault());
    this.root.querySelector(".empty button").addEventListener("click", () => {
      this.words.value = "";
      this.mine.checked = false;
      update();
      this.words.focus();
    });
  }

  #showEmptyState() {
    if (!this.words || !this.#isReady) return;
    const parts = [
      this.words.value.trim() && `“${this.words.value.trim()}”`,
      this.mine.checked && "“moved by me”",
    ].filter(Boolean);
    const isEmpty = parts.length > 0 && this.columns.every(({ cards }) => cards.documents.length === 0);
    const text = isEmpty ? `No cards match ${parts.join(" and ")}.` : "";
    const message = this.root.querySelector(".empty p");
    if (message.textContent !== text) message.textContent = text;
    this.root.classList.toggle("no-cards", isEmpty);
  }

  // actions

  #move(id, step) {
    const at = this.columns.findIndex(({ name }) => name === this.#cards.get(id).dataset.at);
    const to = this.columns[at + step];
    if (to) this.#moveTo(id, to.name);
  }

  #moveTo(id, column) {
    if (this.#cards.get(id)?.dataset.at === column) return;
    post(`tasks/${id}/move`, { column, ...this.actor });
  }

  #acceptDrops({ place, name }) {
    place.addEventListener("dragover", (event) => {
      event.preventDefault();
      event.dataTransfer.dropEffect = "move";
      place.classList.add("over");
    });
    place.addEventListener("dragleave", () => place.classList.remove("over"));
    place.addEventListener("drop", (event) => {
      event.preventDefault();
      place.classList.remove("over");
      this.#moveTo(event.dataTransfer.getData("text/plain"), name);
    });
  }

  // elements

  #newCard(id) {
    const left = button("←", "", () => this.#move(id, -1), { data: { act: "left" } });
    const right = button("→", "", () => this.#move(id, 1), { data: { act: "right" } });
    const remove = button("×", "", () => post(`tasks/${id}/delete`), { data: { act: "delete" } });
    const card = element("li", { className: "card", draggable: true, data: { id } },
      element("div", { className: "top" }, element("p", {}), remove),
      element("div", { className: "foot" }, element("span", { className: "who" }),
        element("span", { className: "tools" }, left, right)));
    card.addEventListener("keydown", ({ key }) => {
      if (key === "ArrowLeft") this.#move(id, -1);
      if (key === "ArrowRight") this.#move(id, 1);
    });
    card.addEventListener("dragstart", (event) => {
      event.dataTransfer.setData("text/plain", id);
      event.dataTransfer.effectAllowed = "move";
      card.classList.add("dragged");
    });
    card.addEventListener("dragend", () => card.classList.remove("dragged"));
    return card;
  }

  #fill(card, { data }, column) {
    const at = this.columns.indexOf(column);
    card.dataset.at = column.name;
    card.querySelector("p").textContent = data.title;
    card.querySelector(".who").textContent = assigneeOf(data);
    for (const tool of card.querySelectorAll("button")) {
      const to = { left: this.columns[at - 1], right: this.columns[at + 1] }[tool.dataset.act];
      const verb = { left: "Move left", right: "Move right", delete: "Delete" }[tool.dataset.act];
      tool.setAttribute("aria-label", `${verb}: ${data.title}`);
      tool.title = to ? `To ${to.label}` : verb;
      if (tool.dataset.act !== "delete") tool.disabled = !to;
    }
  }

  // Return the column of each card. A card that moves leaves one list and enters another, and for
  // a moment it may be in both or in neither; of two documents, the newer one counts.
  #locateCards() {
    const places = new Map();
    for (const column of this.columns) {
      for (const document of column.cards.documents) {
        const other = places.get(document.id);
        if (!other || other.document.data.moved_at < document.data.moved_at)
          places.set(document.id, { document, column });
      }
    }
    return places;
  }

  #requestRender() {
    if (document.hidden) this.#render(); // a hidden page gets no animation frames
    else this.#frameRequest ||= requestAnimationFrame(() => this.#render());
  }

  #render() {
    this.#frameRequest = 0;
    const before = new Map([...this.#cards].map(([id, card]) => [id, card.getBoundingClientRect()]));
    const focused = document.activeElement;
    const places = this.#locateCards();
    const changes = [];

    for (const [id, card] of this.#cards) {
      if (places.has(id)) continue;
      this.#gone.set(id, { rect: before.get(id), at: performance.now(), from: card.dataset.at });
      card.remove();
      this.#cards.delete(id);
      this.#shown.delete(id);
    }
    // first take cards out of their old columns, so that the ones that stay keep their place
    for (const [id, { column }] of places)
      if (this.#cards.get(id)?.parentElement !== column.list) this.#cards.get(id)?.remove();
    for (const column of this.columns) {
      const documents = column.cards.documents.filter(({ id }) => places.get(id).column === column);
      documents.forEach((document, index) => {
        const card = this.#cards.get(document.id) ?? this.#newCard(document.id);
        const from = card.dataset.at ?? this.#gone.get(document.id)?.from;
        if (this.#shown.get(document.id) !== document) {
          this.#fill(card, document, column);
          changes.push({ card, document, column, from, before: this.#shown.get(document.id) });
        }
        this.#cards.set(document.id, card);
        this.#shown.set(document.id, document);
        if (column.list.children[index] !== card)
          column.list.insertBefore(card, column.list.children[index] ?? null);
      });
      column.count.textContent = documents.length;
    }
    if (focused !== document.activeElement && focused.isConnected) {
      const other = focused.closest(".card")?.querySelector(".tools button:enabled");
      (focused.disabled ? other : focused)?.focus({ preventScroll: true });
    }
    if (this.#isReady) this.#report(changes);
    this.#animate(before);
    this.#showEmptyState();
  }

  // Highlight the changes and describe them in words.
  #report(changes) {
    for (const { card, document, column, from, before } of changes) {
      flash(card);
      const { title, moved_at } = document.data;
      const assignee = assigneeOf(document.data);
      const verb = from ? (from === column.name ? "changed in" : "moved to") : "new in";
      const by = verb === "changed in" ? "" : `, by ${assignee}`;
      const isRenamed = before?.data.moved_at === moved_at && assigneeOf(before.data) !== assignee;
      const words = isRenamed
        ? `${assigneeOf(before.data)} is now ${assignee}`
        : `${title} ${verb} ${column.label}${by}`;
      this.root.querySelector(".change").textContent = `Last change: ${words}`;
      if (this.announces && from !== column.name && assignee !== this.db.user?.name)
        announce(`${title}: ${verb} ${column.label}, by ${assignee}`);
    }
  }

  // A card is shown where it was, then glides to where it is.
  #animate(before) {
    const now = performance.now();
    for (const [id, { at }] of this.#gone) if (now - at > GONE_MS) this.#gone.delete(id);
    if (reducedMotion.matches || document.hidden || !this.#isReady) return;
    for (const [id, card] of this.#cards) {
      const from = before.get(id) ?? this.#gone.get(id)?.rect;
      this.#gone.delete(id);
      if (!from) {
        card.animate([{ opacity: 0, transform: "scale(.96)" }, {}], { duration: 250, easing: "ease-out" });
        continue;
      }
      for (const animation of card.getAnimations()) if (animation.id === "glide") animation.cancel();
      const to = card.getBoundingClientRect();
      const [x, y] = [from.left - to.left, from.top - to.top];
      if (Math.abs(x) + Math.abs(y) < 1) continue;
      const zIndex = Math.abs(x) > 1 ? 3 : 1; // a moved card is above those that make room
      card.animate([{ transform: `translate(${x}px, ${y}px)`, zIndex }, { transform: "none", zIndex }],
        { id: "glide", duration: 420, easing: "cubic-bezier(.3, .8, .3, 1)" });
    }
  }
}

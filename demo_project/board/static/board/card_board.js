// The cards as one visitor sees them: three live lists, one per column, of which each shows the
// first cards and loads more on request, and the numbers of cards in all columns.
import { assigneeOf, fillCard, newCard, PRIORITIES } from "./card.js";
import { announce, flash, post, reducedMotion } from "./common.js";
import { Glides } from "./glide.js";

const ORDER = ["-priority", "-moved_at"];
const PAGE = 20; // cards that a column shows at first, and that it loads at a time
const MOST = 1000; // cards that a column shows at most
const GONE_MS = 600; // how long the place of a removed card is kept, should it enter another column
const FILTER_DELAY_MS = 150; // after a key press

export class CardBoard {
  // the cards' elements by id; a card keeps its element in whatever column it is
  #cards = new Map();
  // the documents that the elements show, by id
  #shown = new Map();
  // where removed cards were, by id, for cards that are between two columns
  #gone = new Map();
  // changes before the first display are no news, nor are those of a new filter
  #isReady = false;
  #filterChanges = 0;
  #frameRequest = 0;
  #filterTimer;

  // `root` contains the columns; `actor` is added to the requests that change cards.
  constructor(root, db, { actor = {}, announces = false } = {}) {
    Object.assign(this, { root, db, actor, announces });
    this.words = root.querySelector(".words-filter");
    this.mine = root.querySelector(".mine-filter");
    this.glides = new Glides(root.querySelector(".columns"));
    this.columns = [...root.querySelectorAll("[data-column]")].map((place) => ({
      place,
      name: place.dataset.column,
      label: place.querySelector("h3 span").textContent,
      count: place.querySelector("[data-count]"),
      scroll: place.querySelector(".scroll"),
      list: place.querySelector("ul"),
      rest: place.querySelector(".rest"),
      more: place.querySelector(".rest button"),
    }));
    for (const column of this.columns) {
      this.#watch(column);
      this.#loadAtEnd(column);
      this.#acceptDrops(column);
    }
    this.#count();
    if (this.words) this.#listenToFilter();
    const lists = this.columns.map(({ cards }) => cards.ready);
    // resolves after the first display
    this.ready = Promise.all([...lists, this.counts.ready])
      .then(() => new Promise((resolve) => setTimeout(resolve, 50)))
      .then(() => {
        this.#isReady = true;
        this.#showEmptyState();
      });
  }

  #watch(column) {
    const filters = this.#filters(column);
    column.cards = this.db.live("tasks", { filters, order: ORDER, limit: PAGE });
    column.cards.subscribe(() => this.#requestRender());
  }

  #count() {
    this.counts = this.db.count("tasks", { filters: this.#filters(), groupBy: "column" });
    this.counts.subscribe(() => {
      if (this.counts.value === null) return;
      const counts = new Map(this.counts.groups.map(({ key, count }) => [key.column, count]));
      for (const { name, count } of this.columns)
        count.textContent = (counts.get(name) ?? 0).toLocaleString("en");
    });
  }

  // more cards

  // Load more cards when the end of a column comes into view.
  #loadAtEnd(column) {
    column.more.addEventListener("click", async () => {
      const before = column.cards.documents.length;
      await this.#loadMore(column);
      const loaded = column.cards.documents.length - before;
      if (loaded > 0) announce(`${loaded} more cards in ${column.label}`);
    });
    const observer = new IntersectionObserver((entries) => {
      if (entries.at(-1).isIntersecting) this.#loadMore(column);
    });
    column.observe = () => {
      observer.unobserve(column.more);
      observer.observe(column.more);
    };
    column.observe();
  }

  async #loadMore(column) {
    if (column.isLoading || column.more.hidden) return;
    column.isLoading = true;
    try {
      await column.cards.more(PAGE);
      this.#render();
      column.observe(); // the end may still be in view
    } catch {
      // the page shows the error, and the button stays
    } finally {
      column.isLoading = false;
    }
  }

  #showRest({ cards: { documents, hasMore }, rest, more }) {
    const hasFocus = document.activeElement === more;
    more.hidden = !hasMore || documents.length >= MOST;
    const words = rest.querySelector("span");
    words.hidden = !more.hidden || documents.length <= PAGE;
    words.textContent = hasMore ? `These are the first ${MOST.toLocaleString("en")} cards.` : "All cards are shown.";
    if (hasFocus && more.hidden) rest.focus({ preventScroll: true });
  }

  // filter

  // Return the filters of a column, or of all.
  #filters(column) {
    const words = this.words?.value.trim();
    return {
      ...(column && { column: column.name }),
      ...(words && { title_contains: words }),
      ...(this.mine?.checked && { assignee: Number(this.db.user?.id) }),
    };
  }

  #listenToFilter() {
    const update = async () => {
      this.#filterChanges++;
      const updates = this.columns.map((column) => {
        column.scroll.scrollTop = 0;
        return column.cards.update({ filters: this.#filters(column), limit: PAGE });
      });
      await Promise.allSettled([...updates, this.counts.update({ filters: this.#filters() })]);
      this.#render();
      this.#filterChanges--;
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

  #actions = {
    move: (id, step) => {
      const at = this.columns.findIndex(({ name }) => name === this.#cards.get(id).dataset.at);
      const to = this.columns[at + step];
      if (to) this.#moveTo(id, to.name);
    },
    setPriority: (id, priority) => post(`tasks/${id}/priority`, { priority }),
    remove: (id) => post(`tasks/${id}/delete`),
  };

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

  // display

  #requestRender() {
    if (document.hidden) this.#render(); // a hidden page gets no animation frames
    else this.#frameRequest ||= requestAnimationFrame(() => this.#render());
  }

  #render() {
    cancelAnimationFrame(this.#frameRequest);
    this.#frameRequest = 0;
    const now = performance.now();
    for (const [id, { at }] of this.#gone) if (now - at > GONE_MS) this.#gone.delete(id);
    const before = new Map([...this.#cards].map(([id, card]) => [id, this.glides.locate(card)]));
    this.glides.stop(this.#cards.values());
    const places = this.#locateCards();
    const restoreFocus = this.#rememberFocus();
    const restoreScroll = this.columns.map((column) => this.#rememberScroll(column, places));
    const changes = this.#updateCards(places, before);
    for (const restore of restoreScroll) restore();
    this.columns.forEach((column) => this.#showRest(column));
    restoreFocus();
    if (this.#isReady && !this.#filterChanges) this.#report(changes);
    this.#animate(before, changes);
    this.#showEmptyState();
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

  // Bring the lists into line with the documents. Return the changes.
  #updateCards(places, before) {
    for (const [id, card] of this.#cards) {
      if (places.has(id)) continue;
      const { data } = this.#shown.get(id);
      this.#gone.set(id, { rect: before.get(id), at: performance.now(), from: card.dataset.at, data });
      card.remove();
      this.#cards.delete(id);
      this.#shown.delete(id);
    }
    // first take cards out of their old columns, so that the ones that stay keep their place
    for (const [id, { column }] of places)
      if (this.#cards.get(id)?.parentElement !== column.list) this.#cards.get(id)?.remove();
    const changes = [];
    this.columns.forEach((column, at) => {
      const neighbors = { column, previous: this.columns[at - 1], next: this.columns[at + 1] };
      const documents = column.cards.documents.filter(({ id }) => places.get(id).column === column);
      const newsEnd = this.#newsEnd(column, documents);
      let place = column.list.firstElementChild;
      documents.forEach((document, index) => {
        const { id, data } = document;
        const card = this.#cards.get(id) ?? newCard(id, this.#actions);
        const gone = this.#gone.get(id);
        const from = card.dataset.at ?? gone?.from;
        const shown = this.#shown.get(id);
        if (shown !== document) {
          fillCard(card, data, neighbors);
          const isNews = index < newsEnd && !(gone && isEqual(gone.data, data));
          if (isNews) changes.push({ card, data, column, from, before: shown?.data ?? gone?.data });
        }
        this.#cards.set(id, card);
        this.#shown.set(id, document);
        if (card === place) place = place.nextElementSibling;
        else column.list.insertBefore(card, place);
      });
      column.hadMore = column.cards.hasMore;
    });
    return changes;
  }

  // Return the index behind the last card that may be news. In a list that is not complete, the
  // cards behind it are not new: they were loaded, or fill the place of one that has left.
  #newsEnd(column, documents) {
    const isKnown = ({ id }) => this.#cards.has(id) || this.#gone.has(id);
    return column.hadMore ? documents.findLastIndex(isKnown) + 1 : documents.length;
  }

  // A list that is scrolled stays where it is while cards above change: return a function that
  // scrolls it so that its first visible card that does not change is where it was.
  #rememberScroll({ scroll, list }, places) {
    const card = scroll.scrollTop > 0 && [...list.children].find((card) => {
      const { document, column } = places.get(card.dataset.id) ?? {};
      const isVisible = card.offsetTop + card.offsetHeight > scroll.scrollTop;
      return isVisible && column?.list === list && this.#shown.get(document.id) === document;
    });
    if (!card) return () => {};
    const before = card.offsetTop; // in whole pixels, so that errors do not add up
    return () => (scroll.scrollTop += card.offsetTop - before);
  }

  // Return a function that gives the focus back to a control that is moved in the document. If it
  // has been removed or disabled, a control beside it, or of the card in its place, gets the focus.
  #rememberFocus() {
    const focused = document.activeElement;
    const card = focused.closest(".card");
    const list = card?.parentElement;
    const index = card && [...list.children].indexOf(card);
    return () => {
      if (!card || !this.root.contains(list) || focused === document.activeElement) return;
      const other = card.isConnected ? card : list.children[Math.min(index, list.children.length - 1)];
      const isUsable = focused.isConnected && !focused.disabled;
      (isUsable ? focused : other?.querySelector(".tools button:enabled"))?.focus({ preventScroll: true });
    };
  }

  // Highlight the changes and describe them in words.
  #report(changes) {
    for (const { card, data, column, from, before } of changes) {
      flash(card);
      const { title } = data;
      const assignee = assigneeOf(data);
      const verb = from ? (from === column.name ? "changed in" : "moved to") : "new in";
      const words = describeValues(before, data)
        ?? `${title} ${verb} ${column.label}${verb === "changed in" ? "" : `, by ${assignee}`}`;
      this.root.querySelector(".change").textContent = `Last change: ${words}`;
      if (this.announces && from !== column.name && assignee !== this.db.user?.name)
        announce(`${title}: ${verb} ${column.label}, by ${assignee}`);
    }
  }

  #animate(before, changes) {
    if (reducedMotion.matches || document.hidden || !this.#isReady) return;
    const moved = new Set(changes.map(({ card }) => card));
    const views = new Map(this.columns.map(({ list, scroll }) => [list, scroll.getBoundingClientRect()]));
    const after = new Map([...this.#cards].map(([id, card]) => [id, card.getBoundingClientRect()]));
    for (const [id, card] of this.#cards) {
      const from = before.get(id) ?? this.#gone.get(id)?.rect;
      const view = views.get(card.parentElement);
      this.#gone.delete(id);
      if (from) this.glides.glide(card, from, after.get(id), view, { isMoved: moved.has(card) });
      else this.glides.appear(card, after.get(id), view);
    }
  }
}

const isEqual = (one, other) => JSON.stringify(one) === JSON.stringify(other);

// Return a sentence if only a value beside the title and the column has changed.
function describeValues(before, { title, column, moved_at, priority, ...data }) {
  if (!before || before.moved_at !== moved_at || before.column !== column) return undefined;
  const [old, assignee] = [assigneeOf(before), assigneeOf(data)];
  if (old !== assignee) return `${old} is now ${assignee}`;
  if (before.priority !== priority) return `${title} has priority ${PRIORITIES[priority]}`;
  return undefined;
}

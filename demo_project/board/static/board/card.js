// The element of one card.
import { button, element } from "./common.js";

export const PRIORITIES = ["low", "normal", "high"];

export const assigneeOf = (data) => data["assignee.username"] ?? "Unassigned";

// `actions` has the functions that the card's controls call: move(id, step), setPriority(id,
// priority), remove(id).
export function newCard(id, { move, setPriority, remove }) {
  const nextPriority = () => (Number(card.dataset.priority) + 1) % PRIORITIES.length;
  const priority = button("", "", () => setPriority(id, nextPriority()), { className: "quiet priority" });
  priority.append(...PRIORITIES.map(() => element("i")));
  const left = button("←", "", () => move(id, -1), { data: { act: "left" } });
  const right = button("→", "", () => move(id, 1), { data: { act: "right" } });
  const deletion = button("×", "", () => remove(id), { data: { act: "delete" } });
  const card = element("li", { className: "card", draggable: true, data: { id } },
    element("div", { className: "top" }, element("p", { className: "title" }), deletion),
    element("div", { className: "foot" },
      element("span", { className: "by" }, priority, element("span", { className: "who" })),
      element("span", { className: "tools" }, left, right)));
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

// `previous` and `next` are the columns beside that of the card, if there are such.
export function fillCard(card, data, { column, previous, next }) {
  card.dataset.at = column.name;
  card.dataset.priority = data.priority;
  card.querySelector(".title").textContent = data.title;
  card.querySelector(".who").textContent = assigneeOf(data);
  const priority = card.querySelector(".priority");
  [...priority.children].forEach((bar, index) => bar.classList.toggle("on", index <= data.priority));
  label(priority, `Priority ${PRIORITIES[data.priority]}`, data.title);
  const target = { left: previous, right: next };
  const verb = { left: "Move left", right: "Move right", delete: "Delete" };
  for (const tool of card.querySelectorAll("[data-act]")) {
    const { act } = tool.dataset;
    label(tool, verb[act], data.title);
    if (target[act]) tool.title = `To ${target[act].label}`;
    if (act !== "delete") tool.disabled = !target[act];
  }
}

function label(control, words, title) {
  control.title = words;
  control.setAttribute("aria-label", `${words}: ${title}`);
}

// Small building blocks for the page's elements.

export const $ = (id) => document.getElementById(id);

export function element(name, props = {}, ...children) {
  const { aria = {}, data = {}, ...rest } = props;
  const node = Object.assign(document.createElement(name), rest);
  for (const [key, value] of Object.entries(aria)) node.setAttribute(`aria-${key}`, value);
  Object.assign(node.dataset, data);
  node.append(...children);
  return node;
}

export function button(text, label, act, props = {}) {
  const node = element("button", { type: "button", textContent: text, className: "quiet", ...props });
  if (label !== text) {
    node.title = label;
    node.setAttribute("aria-label", label);
  }
  node.addEventListener("click", act);
  return node;
}

// Highlight a node for a moment.
export function flash(node) {
  node.classList.remove("flash");
  void node.offsetWidth;
  node.classList.add("flash");
  // otherwise the animation starts again when the node is moved in the document
  node.addEventListener("animationend", () => node.classList.remove("flash"), { once: true });
}

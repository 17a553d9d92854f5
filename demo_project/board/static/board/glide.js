// Animations of cards between two displays: a card is shown where it was, then glides to where it
// is. A list clips the cards that it contains, so a copy of the card glides from list to list.

const GLIDE = { id: "glide", duration: 420, easing: "cubic-bezier(.3, .8, .3, 1)" };
const APPEAR = { duration: 250, easing: "ease-out" };

const overlaps = (rect, view) => rect.bottom > view.top && rect.top < view.bottom;

export class Glides {
  // cards that glide between lists, by element: the copy and the animations of both
  #copies = new Map();

  // `layer` is the positioned element to which the copies are added.
  constructor(layer) {
    this.layer = layer;
  }

  // Return where a card is seen at the moment.
  locate(card) {
    return (this.#copies.get(card)?.copy ?? card).getBoundingClientRect();
  }

  // End all animations of positions, so that cards can be measured where they are.
  stop(cards) {
    for (const { end } of this.#copies.values()) end();
    for (const card of cards)
      for (const animation of card.getAnimations()) if (animation.id === GLIDE.id) animation.cancel();
  }

  // Animate a card that is new on the display.
  appear(card, to, view) {
    if (overlaps(to, view)) card.animate([{ opacity: 0, transform: "scale(.96)" }, {}], APPEAR);
  }

  // Animate a card from one rectangle to another; `view` is the visible part of its list.
  glide(card, from, to, view, { isMoved }) {
    const [x, y] = [from.left - to.left, from.top - to.top];
    if (Math.abs(x) + Math.abs(y) < 1 || !(overlaps(from, view) || overlaps(to, view))) return;
    if (Math.abs(x) > 1) this.#glideCopy(card, from, to, view);
    else {
      const zIndex = isMoved ? 3 : 1; // a moved card is above those that make room
      card.animate([{ transform: `translate(${x}px, ${y}px)`, zIndex }, { transform: "none", zIndex }], GLIDE);
    }
  }

  #glideCopy(card, from, to, view) {
    const copy = card.cloneNode(true);
    copy.classList.replace("card", "ghost");
    copy.inert = true;
    copy.setAttribute("aria-hidden", "true");
    const layer = this.layer.getBoundingClientRect();
    // a place that is scrolled out of sight is replaced by one at the edge, without a visible copy
    const limit = (rect) => Math.min(Math.max(rect.top, view.top - rect.height), view.bottom);
    const opacity = (rect) => (overlaps(rect, view) ? 1 : 0);
    const top = limit(to);
    Object.assign(copy.style, {
      left: `${to.left - layer.left - this.layer.clientLeft}px`,
      top: `${top - layer.top - this.layer.clientTop}px`,
      width: `${to.width}px`,
    });
    this.layer.append(copy);
    const start = `translate(${from.left - to.left}px, ${limit(from) - top}px)`;
    const gliding = copy.animate(
      [{ transform: start, opacity: opacity(from) }, { transform: "none", opacity: opacity(to) }], GLIDE);
    // not hidden by visibility, which would take the focus from its buttons
    const hiding = card.animate([{ opacity: 0 }, { opacity: 0 }], { duration: GLIDE.duration });
    const end = () => {
      this.#copies.delete(card);
      copy.remove();
      hiding.cancel();
    };
    this.#copies.set(card, { copy, end });
    gliding.onfinish = end;
  }
}

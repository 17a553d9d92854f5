// The list of frames: one folded row per frame, with its JSON inside.
import { $, element } from "./elements.js";

const MAX_FRAMES = 60;

// Return the title of the thing that changed, if the frame has it.
function describeEvent({ event, document, member, message }) {
  const title = document?.data?.title ?? member?.name ?? message?.text;
  return [event, title ? `“${title}”` : document && `#${document.id}`].filter(Boolean).join(" ");
}

// Return a few words that describe a frame.
function describe(frame) {
  if (frame.type === "events") return frame.events.map(describeEvent).join(", ");
  const { collection, room, filters, documents, resumed, user } = frame;
  return [
    collection ?? room,
    filters && JSON.stringify(filters),
    describeEvent(frame),
    documents && (documents.length === 1 ? "1 document" : `${documents.length} documents`),
    resumed === undefined ? "" : resumed ? "resumed" : "not resumed",
    user?.name,
  ].filter(Boolean).join(" · ");
}

function row({ direction, frame }) {
  const [sign, words] = direction === "in" ? ["↓", "received"] : ["↑", "sent"];
  return element("li", {},
    element("details", {},
      element("summary", {},
        element("b", { textContent: sign, className: direction, title: words, aria: { hidden: "true" } }),
        element("span", { className: "sr", textContent: words }),
        element("code", { textContent: frame.type }),
        element("span", { className: "about", textContent: describe(frame) })),
      element("pre", {}, element("code", { textContent: JSON.stringify(frame, null, 2) }))));
}

export function logFrames(db) {
  const [list, count] = [$("log"), $("frames")];
  if (!list) return;
  db.on("frame", ({ direction, frame }) => {
    if (frame.type === "ping" || frame.type === "pong") return;
    count.textContent = 1 + Number(count.textContent);
    list.prepend(row({ direction, frame }));
    while (list.children.length > MAX_FRAMES) list.lastChild.remove();
  });
}

// The list of frames: one folded row per frame, with its JSON inside.
import { $, element } from "./elements.js";

const MAX_FRAMES = 60;
const MAX_TITLES = 3; // of documents in the description of a frame

// Return the title of the thing that changed, if the frame has it.
function describeEvent({ event, document, member, message }) {
  const title = document?.data?.title ?? member?.name ?? message?.text;
  return [event, title ? `“${title}”` : document && `#${document.id}`].filter(Boolean).join(" ");
}

const quantity = (number, noun) => `${number} ${noun}${number === 1 ? "" : "s"}`;

// Return how a window changes: documents are removed by id, then inserted.
function describeWindow({ reset, remove = [], insert = [] }) {
  if (reset) return quantity(insert.length, "document");
  const inserted = insert.map(([, { id, data }]) => (data?.title ? `“${data.title}”` : `#${id}`));
  return [
    remove.length && `${remove.length} removed`,
    insert.length && `inserted ${inserted.slice(0, MAX_TITLES).join(", ")}${insert.length > MAX_TITLES ? ", …" : ""}`,
  ].filter(Boolean).join(", ");
}

const describeGroup = ({ key, count }) => [...Object.values(key ?? {}), count].join(" ");

// Return a few words that describe a frame.
function describe(frame) {
  if (frame.type === "events") return frame.events.map(describe).join(", ");
  if (frame.type === "window") return describeWindow(frame);
  if (frame.type === "aggregate") return frame.groups.map(describeGroup).join(", ");
  const { collection, room, filters, documents, resumed, user } = frame;
  return [
    collection ?? room,
    filters && JSON.stringify(filters),
    describeEvent(frame),
    documents && quantity(documents.length, "document"),
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

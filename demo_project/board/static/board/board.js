// The first page: the cards as two visitors see them, and a list of posts.
import { Realtime } from "../django_cocobase_realtime/realtime.js";
import { CardBoard } from "./card_board.js";
import { $, announce, button, db, element, fetchToken, onSubmit, post, reducedMotion, showStatus } from "./common.js";

const COPIED_MS = 2000; // how long a button shows that its command was copied

// The second visitor has a client of its own, with its own WebSocket, identified by a token.
const second = new Realtime({ url: "/realtime", token: () => fetchToken("/token/guest") });
showStatus(second, $("second").querySelector(".state"));
second.on("status", ({ status }) => {
  if (status === "live") $("second").querySelector("[data-name]").textContent = second.user.name;
});
// if another user logs in, this browser's second visitor is another one, too
db.on("status", ({ code }) => {
  if (code !== 4500) return;
  second.close();
  setTimeout(() => second.connect(), 500);
});

const boards = [
  new CardBoard($("you"), db, { announces: true }),
  new CardBoard($("second"), second, { actor: { as: "guest" } }),
];
Promise.all(boards.map(({ ready }) => ready)).then(() => {
  performance.mark("filled");
  document.body.dataset.ready = "";
  if (!reducedMotion.matches) post("auto-moves");
});
onSubmit("add-task", (title) => post("tasks", { title }));
$("rename").addEventListener("click", () => post("rename"));
$("auto-moves").addEventListener("click", () => post("auto-moves"));

// commands for a terminal

async function copyCommand({ currentTarget: copy }) {
  const code = copy.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    copy.textContent = "Copied";
    announce("The command is copied.");
    setTimeout(() => (copy.textContent = "Copy"), COPIED_MS);
  } catch {
    // the browser does not allow it: select the text, so that the visitor can copy it
    getSelection().selectAllChildren(code);
  }
}
for (const copy of document.querySelectorAll(".copy")) copy.addEventListener("click", copyCommand);

// posts

const postFilters = () => ({ filters: $("drafts").checked ? {} : { status: "published" } });
const posts = db.live("posts", { ...postFilters(), order: "-created_at", limit: 4 });
const items = new Map(); // document → element

function newItem({ id, data }) {
  const isDraft = data.status !== "published";
  const verb = isDraft ? "Publish" : "Unpublish";
  return element("li", { className: isDraft ? "draft" : "" }, element("span", { textContent: data.title }),
    button(verb, `${verb}: ${data.title}`, () => post(`posts/${id}/toggle`)));
}

posts.subscribe((documents) => {
  for (const each of documents) if (!items.has(each)) items.set(each, newItem(each));
  for (const each of items.keys()) if (!documents.includes(each)) items.delete(each);
  $("posts").replaceChildren(...documents.map((each) => items.get(each)));
});
$("drafts").addEventListener("change", () => posts.update(postFilters()));
onSubmit("add-post", (title) => post("posts", { title }));

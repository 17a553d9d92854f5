// A room: its members, who is typing, its history, and how long a message takes.
import { $, clockTime, db, element, showError } from "./common.js";

const room = db.room("chat-123", { history: 30, state: { typing: false } });

// Messages that were sent and did not come back from the room yet: key → { item, sentAt }.
const pending = new Map();

function line({ name, text, note, isMine }) {
  return element("li", { className: isMine ? "mine" : "" },
    element("span", { className: "name", textContent: name }),
    element("span", { className: "words", textContent: text }),
    element("small", { textContent: note }));
}

function append(item) {
  const { scrollHeight, scrollTop, clientHeight } = $("messages");
  const isAtEnd = scrollHeight - scrollTop - clientHeight < 60;
  $("messages").append(item);
  if (isAtEnd || item.classList.contains("mine")) $("messages").scrollTop = $("messages").scrollHeight;
}

room.on("message", ({ message, sender, at }) => {
  const isMine = sender !== null && sender.id === db.user.id;
  const own = isMine && pending.get(message?.key);
  let note = clockTime(at);
  if (own) {
    note = `round trip ${Math.max(1, Math.round(performance.now() - own.sentAt))} ms`;
    own.item.remove();
    pending.delete(message.key);
  }
  const text = typeof message?.text === "string" ? message.text : JSON.stringify(message);
  append(line({ name: isMine ? "you" : sender?.name ?? "the server", text, note, isMine }));
});

room.subscribe((members) => {
  $("people").textContent = room.participants;
  const sorted = [...members].sort((a, b) => (a.name < b.name ? -1 : 1));
  showMembers(sorted);
  showTyping(sorted.filter(({ id, state }) => state?.typing && id !== db.user?.id));
});

function showMembers(members) {
  $("members").replaceChildren(...members.map(({ id, name, state }) =>
    element("li", { className: state?.typing ? "busy" : "" },
      element("span", { className: "face", textContent: name[0], aria: { hidden: "true" } }),
      element("span", { textContent: id === db.user?.id ? `${name} (you)` : name }))));
}

function showTyping(members) {
  const names = members.slice(0, 3).map(({ name }) => name).join(", ");
  $("typing").textContent = names && `${names} ${members.length > 1 ? "are" : "is"} typing…`;
}

// The state is sent when typing begins and when it ends, not with each key.
let isTyping = false;
let typingTimer;
function setTyping(typing) {
  clearTimeout(typingTimer);
  if (typing) typingTimer = setTimeout(() => setTyping(false), 2500);
  if (typing === isTyping) return;
  isTyping = typing;
  room.setState({ typing }).catch(() => {});
}
$("message").addEventListener("input", ({ target }) => setTyping(target.value !== ""));

$("send").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("message").value.trim();
  $("message").value = "";
  setTyping(false);
  if (!text) return;
  const key = crypto.getRandomValues(new Uint32Array(2)).join("-");
  const item = line({ name: "you", text, note: "sending…", isMine: true });
  item.classList.add("pending");
  pending.set(key, { item, sentAt: performance.now() });
  append(item);
  room.broadcast({ text, key }).catch((error) => {
    pending.delete(key);
    item.querySelector("small").textContent = "not sent";
    showError(error.message);
  });
});

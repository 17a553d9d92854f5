// A room: who is here, who is typing, what was said before, and the echo of what one says.
import { $, clockTime, complain, db, element } from "./common.js";

const room = db.room("chat-123", { history: 30, state: { typing: false } });
const pending = new Map(); // key → { item, sent }, said and not heard yet

function line({ name, text, note, mine }) {
  return element("li", { className: mine ? "mine" : "" },
    element("span", { className: "name", textContent: name }),
    element("span", { className: "words", textContent: text }),
    element("small", { textContent: note }));
}

function add(item) {
  const { scrollHeight, scrollTop, clientHeight } = $("talk");
  const atEnd = scrollHeight - scrollTop - clientHeight < 60;
  $("talk").append(item);
  if (atEnd || item.classList.contains("mine")) $("talk").scrollTop = $("talk").scrollHeight;
}

room.on("message", ({ message, sender, at }) => {
  const mine = sender !== null && sender.id === db.user.id;
  const waiting = mine && pending.get(message?.key);
  let note = clockTime(at);
  if (waiting) {
    note = `echo ${Math.max(1, Math.round(performance.now() - waiting.sent))} ms`;
    waiting.item.remove();
    pending.delete(message.key);
  }
  const text = typeof message?.text === "string" ? message.text : JSON.stringify(message);
  add(line({ name: mine ? "you" : sender?.name ?? "the server", text, note, mine }));
});

room.subscribe((members) => {
  $("people").textContent = room.participants;
  const byName = [...members].sort((a, b) => (a.name < b.name ? -1 : 1));
  const isMe = ({ id }) => id === db.user?.id;
  $("members").replaceChildren(...byName.map((member) => element("li", { className: member.state?.typing ? "busy" : "" },
    element("span", { className: "face", textContent: member.name[0], aria: { hidden: "true" } }),
    element("span", { textContent: isMe(member) ? `${member.name} (you)` : member.name }))));
  const busy = byName.filter((member) => member.state?.typing && !isMe(member)).map(({ name }) => name);
  $("typing").textContent = busy.length
    ? `${busy.slice(0, 3).join(", ")} ${busy.length > 1 ? "are" : "is"} typing…` : "";
});

// The state is changed when typing begins and ends, not with each key.
let typing = false;
let idle;
function setTyping(now) {
  clearTimeout(idle);
  if (now) idle = setTimeout(() => setTyping(false), 2500);
  if (now === typing) return;
  typing = now;
  room.setState({ typing }).catch(() => {});
}
$("message").addEventListener("input", ({ target }) => setTyping(target.value !== ""));

$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("message").value.trim();
  $("message").value = "";
  setTyping(false);
  if (!text) return;
  const key = crypto.getRandomValues(new Uint32Array(2)).join("-");
  const item = line({ name: "you", text, note: "sending…", mine: true });
  item.classList.add("pending");
  pending.set(key, { item, sent: performance.now() });
  add(item);
  room.broadcast({ text, key }).catch((error) => {
    pending.delete(key);
    item.querySelector("small").textContent = "not sent";
    complain(error.message);
  });
});

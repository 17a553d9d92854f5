import { db } from "./db.js";

export { db };

// A page that uses the client while it is rendered, and ends nothing.
export function render() {
  const posts = db.live("posts", { order: "title" });
  posts.subscribe(() => {});
  const room = db.room("news", { state: { typing: false } });
  const stop = db.watchCollection("posts", () => {});
  stop.ready.catch(() => {});
  return `<ul>${posts.documents.map(({ data }) => `<li>${data.title}</li>`)}</ul><p>${room.members.length}</p>`;
}

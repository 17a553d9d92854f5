// Programs that describe their collections, states and messages by interfaces.

import { Realtime } from "django-cocobase-realtime";
import type { ChangeEvent, Live } from "django-cocobase-realtime";

interface Post {
  title: string;
  status: "draft" | "published";
  views: number;
}
interface PostFilters {
  status: "draft" | "published";
  views__gte?: number;
}
interface Typing {
  typing: boolean;
}
interface Message {
  text: string;
}

const db = new Realtime();

// by a type for one collection
const filters: PostFilters = { status: "published" };
const posts = db.live<Post>("posts", { filters, compare: (a, b) => b.data.views - a.data.views });
const title: string | undefined = posts.documents[0]?.data.title;
posts.subscribe((documents) => console.log(documents[0]?.data.views.toFixed(), title));

db.watchCollection<Post>("posts", (event) => {
  if (event.event === "left") return;
  if (event.data) console.log(event.data.title.toUpperCase());
});
function show(event: ChangeEvent<Post>) {
  if (event.event === "left") {
    // @ts-expect-error: what has left is not sent
    event.data.title;
    // @ts-expect-error: what has left is not sent
    event.document.data.title;
  }
  if (event.truncated) {
    // @ts-expect-error: it is too large to send
    event.data.title;
  }
  if (event.event === "created" && event.document.data) event.document.data.title.toUpperCase();
  // @ts-expect-error: it may have left
  event.data.title;
}
show;

// rooms
const room = db.room<Message>("news", { state: { typing: false } satisfies Typing });
const typing: Typing = { typing: true };
room.setState(typing);
const message: Message = { text: "hi" };
room.broadcast(message);
room.on("message", ({ message: { text }, sender }) => console.log(text.length, sender?.name));
// @ts-expect-error: the message has no text
room.broadcast({ texts: "hi" });
// @ts-expect-error: a state is an object
room.setState("typing");

// by a type for all collections
interface Collections {
  posts: Post;
  orders: { total: string };
}
const typed = new Realtime<Collections>({ token: "key" });
const orders: Live<{ total: string }> = typed.live("orders", { order: "-total", fields: ["total"] });
typed.watchCollection("posts", (event) => {
  if (event.event === "created" && !event.truncated) console.log(event.data?.views.toFixed());
});
orders.documents.map(({ data }) => data.total.length);
// only the fields that were asked for
const titles = typed.live("posts", { fields: ["title"], order: "-views" });
titles.documents[0]?.data.title.toUpperCase();
// @ts-expect-error: the views were not asked for
titles.documents[0]?.data.views;
// @ts-expect-error: there is no such collection
typed.live("post");
// @ts-expect-error: orders have no title
typed.live("orders").documents[0]?.data.title;
// @ts-expect-error: there is no such field
typed.live("orders", { fields: ["titel"] });
// @ts-expect-error: there is no such field
typed.live("orders", { order: "-titel" });

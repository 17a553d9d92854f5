// Programs that describe their collections, states and messages by interfaces.

import { Realtime } from "django-cocobase-realtime";
import type { ChangeEvent, Count, Live } from "django-cocobase-realtime";

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
const posts = db.live<Post>("posts", { filters, order: ["-views", "title"], limit: 20 });
const title: string | undefined = posts.documents[0]?.data.title;
posts.subscribe((documents) => console.log(documents[0]?.data.views.toFixed(), title));

posts.more().then(() => posts.more(5));
if (posts.hasMore) posts.update({ after: posts.next, limit: null });
const views = db.count<Post>("posts", { filters, groupBy: "status", sum: ["views"], avg: "views" });
views.subscribe((groups) => {
  const mean: number | null | undefined = groups[0]?.avg?.views;
  console.log(groups[0]?.key?.status?.toUpperCase(), mean?.toFixed(), views.value ?? "?");
});

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
const count: Count<{ total: string }> = typed.count("orders", { max: "total" });
count.update({ max: ["total"], filters: { total__gte: 5 } });
// only the fields that were asked for
const titles = typed.live("posts", { fields: ["title"], order: "-views" });
titles.documents[0]?.data.title.toUpperCase();
// @ts-expect-error: the views were not asked for
titles.documents[0]?.data.views;
titles.update({ order: "-views,title", limit: 20 });
// @ts-expect-error: there is no such collection
typed.live("post");
// @ts-expect-error: orders have no title
typed.live("orders").documents[0]?.data.title;
// @ts-expect-error: there is no such field
typed.live("orders", { fields: ["titel"] });
// @ts-expect-error: there is no such field
typed.live("orders", { order: "-titel" });
// @ts-expect-error: there is no such field
typed.live("orders", { order: ["total", "-titel"] });
// @ts-expect-error: there is no such field
typed.live("orders", { order: "titel,total" });
// @ts-expect-error: there is no such field
typed.count("orders", { groupBy: "titel" });
// @ts-expect-error: only a list can show other documents
count.update({ limit: 5 });
// @ts-expect-error: the server sorts
typed.live("orders", { compare: () => 0 });

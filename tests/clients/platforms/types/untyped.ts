// Programs without types of their own documents.

import { Realtime, RealtimeError } from "django-cocobase-realtime";
import type { Count, Live, Status, Store } from "django-cocobase-realtime";

const db = new Realtime({ url: "/realtime/", token: async () => "key", timeout: 4000 });
const status: Status = db.status;

const stop = db.watchCollection("posts", (event) => {
  const id: string = event.document.id;
  if (event.event === "created" && event.data) console.log(id, event.data.title);
});
stop.ready.then(({ cursor, scope }) => console.log(cursor, scope));
stop();

const posts: Live = db.live("posts", { filters: { status: "published", views__gte: 3 } });
const store: Store<readonly { id: string }[]> = posts;
posts.documents[0]?.data.anything.at.all;
posts.update({ order: "-priority,created_at", limit: 50, after: posts.next });
const count: Count = db.count("posts", { groupBy: ["status"], min: "views" });
console.log(count.value, count.groups[0]?.key?.status, count.groups[0]?.min?.views.anything);

db.room("news").broadcast({ text: "hi" });
db.on("error", (error) => {
  const code: string | number = error.code;
  console.log(error instanceof RealtimeError, code, error.retryAfter, status, store);
});

// @ts-expect-error: there is no such option
new Realtime({ tokn: "key" });
// @ts-expect-error: there is no such option
db.live("posts", { filter: { status: "published" } });
// @ts-expect-error: there is no such status
db.status === "open";
// @ts-expect-error: the array is the same object until it changes
posts.documents.push({ id: "1", data: {} });
// @ts-expect-error: there is no such event
db.on("statuses", () => {});
// @ts-expect-error: the array is the same object until it changes
count.groups.push({ count: 1 });

import { createApp, createSSRApp, h } from "vue";
import Posts from "./Posts.vue";

export { db } from "./db.js";

export function hydrate(target) {
  const app = createSSRApp(Posts, { status: "published" });
  app.mount(target);
  return () => app.unmount();
}

export function mount(target, statuses) {
  const app = createApp({ render: () => statuses.map((status) => h(Posts, { status })) });
  app.mount(target);
  return () => app.unmount();
}

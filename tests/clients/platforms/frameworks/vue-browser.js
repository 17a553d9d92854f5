import { createApp, createSSRApp, h, ref } from "vue";
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

// One component, whose `status` can be changed.
export function follow(target, status) {
  const current = ref(status);
  const app = createApp({ render: () => h(Posts, { status: current.value }) });
  app.mount(target);
  return { change: (value) => { current.value = value; }, end: () => app.unmount() };
}

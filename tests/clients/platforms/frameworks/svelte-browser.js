import { flushSync, hydrate as hydrateComponent, mount as mountComponent, unmount } from "svelte";
import Posts from "./Posts.svelte";
import { createProps } from "./props.svelte.js";

export { db } from "./db.js";

export function hydrate(target) {
  const component = hydrateComponent(Posts, { target, props: { status: "published" }, recover: false });
  return () => unmount(component);
}

export function mount(target, statuses) {
  const components = statuses.map((status) => mountComponent(Posts, { target, props: { status } }));
  flushSync();
  return () => components.forEach((component) => unmount(component));
}

// One component, whose `status` can be changed.
export function follow(target, status) {
  const props = createProps({ status });
  const component = mountComponent(Posts, { target, props });
  flushSync();
  return { change: (value) => { props.status = value; }, end: () => unmount(component) };
}

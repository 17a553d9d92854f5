import { StrictMode } from "react";
import { flushSync } from "react-dom";
import { createRoot, hydrateRoot } from "react-dom/client";
import { Members } from "./members.jsx";
import { Posts } from "./posts.jsx";

export { db } from "./db.js";

function show(root, element) {
  flushSync(() => root.render(<StrictMode>{element}</StrictMode>));
  return () => root.unmount();
}

export function hydrate(target, onRecoverableError) {
  const page = (
    <main>
      <Posts status="published" />
      <Members room="news" />
    </main>
  );
  const root = hydrateRoot(target, page, { onRecoverableError });
  return () => root.unmount();
}

export const mount = (target, statuses) =>
  show(createRoot(target), statuses.map((status) => <Posts key={status} status={status} />));

export const join = (target, room) => show(createRoot(target), <Members room={room} />);

// One component, whose `status` can be changed.
export function follow(target, status) {
  const root = createRoot(target);
  const change = (value) => flushSync(() => root.render(<Posts status={value} />));
  change(status);
  return { change, end: () => root.unmount() };
}

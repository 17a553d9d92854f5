import { renderToString } from "react-dom/server";
import { Members } from "./members.jsx";
import { Posts } from "./posts.jsx";

export { db } from "./db.js";

export const render = () =>
  renderToString(
    <main>
      <Posts status="published" />
      <Members room="news" />
    </main>,
  );

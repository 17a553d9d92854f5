import { createSSRApp } from "vue";
import { renderToString } from "vue/server-renderer";
import Posts from "./Posts.vue";

export { db } from "./db.js";

export const render = () => renderToString(createSSRApp(Posts, { status: "published" }));

import { render as renderComponent } from "svelte/server";
import Posts from "./Posts.svelte";

export { db } from "./db.js";

export const render = () => renderComponent(Posts, { props: { status: "published" } }).body;

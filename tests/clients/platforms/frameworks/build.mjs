// Compiles the components of one framework for a server and for browsers.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { build } from "esbuild";

const [framework] = process.argv.slice(2);

const svelte = (generate) => ({
  name: "svelte",
  async setup({ onLoad }) {
    const { compile, compileModule } = await import("svelte/compiler");
    onLoad({ filter: /\.svelte(\.js)?$/ }, async ({ path }) => {
      const run = path.endsWith(".js") ? compileModule : compile;
      const { js, warnings } = run(await readFile(path, "utf8"), { generate, dev: generate === "client", filename: path });
      return { contents: js.code, warnings: warnings.map(({ message }) => ({ text: message })) };
    });
  },
});

const vue = (ssr) => ({
  name: "vue",
  async setup({ onLoad }) {
    const { compileScript, parse } = await import("vue/compiler-sfc");
    onLoad({ filter: /\.vue$/ }, async ({ path }) => {
      const { descriptor } = parse(await readFile(path, "utf8"), { filename: path });
      const templateOptions = { ssr, ssrCssVars: [] };
      const { content } = compileScript(descriptor, { id: "posts", inlineTemplate: true, templateOptions });
      return { contents: content };
    });
  },
});

const plugins = { react: () => [], plain: () => [], vue: (ssr) => [vue(ssr)], svelte: (ssr) => [svelte(ssr ? "server" : "client")] };

const common = { bundle: true, jsx: "automatic", logLevel: "warning", loader: { ".js": "jsx" } };
await build({
  ...common,
  entryPoints: [`${framework}-server.js`],
  outfile: "server.mjs",
  format: "esm",
  platform: "node",
  packages: "external",
  plugins: plugins[framework](true),
});
if (!existsSync(`${framework}-browser.js`)) process.exit();
await build({
  ...common,
  entryPoints: [`${framework}-browser.js`],
  outfile: "browser.js",
  format: "iife",
  globalName: "app",
  define: {
    "process.env.NODE_ENV": '"development"',
    __VUE_OPTIONS_API__: "true",
    __VUE_PROD_DEVTOOLS__: "false",
    __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: "true",
  },
  plugins: plugins[framework](false),
});

// Loaded before a server that renders pages. On SIGUSR2, writes what the server has opened.

import { subscribe } from "node:diagnostics_channel";
import { renameSync, writeFileSync } from "node:fs";

let connections = 0;
subscribe("net.client.socket", () => connections++);
const file = process.env.PROBE_REPORT;
process.on("SIGUSR2", () => {
  const resources = process.getActiveResourcesInfo().sort();
  writeFileSync(`${file}.new`, JSON.stringify({ connections, resources }));
  renameSync(`${file}.new`, file);
});

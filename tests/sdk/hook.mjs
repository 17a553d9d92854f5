// Redirects the SDK's hard-coded host to the test's server without changing the package.
const target = process.env.REALTIME_TARGET; // http://127.0.0.1:port
const HOSTS = /^(https?|wss?):\/\/(?:api|cloud)\.cocobase\.(?:cc|buzz)/;
const own = (url) =>
  String(url).replace(HOSTS, (_, scheme) => target.replace(/^http/, scheme.startsWith("ws") ? "ws" : "http"));

const Native = globalThis.WebSocket;
globalThis.WebSocket = class extends Native {
  constructor(url, ...rest) {
    super(own(url), ...rest);
  }
};
const nativeFetch = globalThis.fetch;
globalThis.fetch = (url, ...rest) => nativeFetch(own(url), ...rest);

// A small client of the realtime protocol: one socket, authenticated by the Django session,
// back by itself after a loss. `ready` is called whenever the socket is authenticated anew: the
// place to subscribe.

const SILENCE = 8000; // ms without an answer to a ping: the line is dead

export class Live {
  constructor({ url, ready, event, state, frame }) {
    Object.assign(this, { url, ready, event, state, frame });
    this.attempt = 0;
    this.next = 1;
    this.waiting = new Map();
    addEventListener("online", () => this.connect());
    this.connect();
  }

  connect() {
    if (this.socket && this.socket.readyState < WebSocket.CLOSING) return;
    clearTimeout(this.timer);
    this.state("connecting");
    const socket = (this.socket = new WebSocket(this.url));
    socket.onopen = () => this.request({ type: "auth" }).then((hello) => {
      this.attempt = 0;
      this.beat(hello.heartbeat * 1000);
      this.state("live", hello);
      this.ready(this);
    }, () => {});
    socket.onmessage = (message) => this.take(JSON.parse(message.data), message.data.length);
    socket.onclose = (close) => this.lost(close.code);
  }

  take(frame, size) {
    this.heard = performance.now();
    this.frame("in", frame, size);
    const waiting = this.waiting.get(frame.id);
    if (waiting) {
      this.waiting.delete(frame.id);
      if (frame.type === "error") waiting.reject(frame);
      else waiting.resolve(frame);
    } else if (frame.type === "closing") {
      this.pause = frame.retry_after_ms;
    } else {
      this.event(frame);
    }
  }

  // The answer to a request, found again by its id.
  request(frame) {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.send({ ...frame, id });
    });
  }

  send(frame) {
    if (this.socket.readyState !== WebSocket.OPEN) return;
    this.frame("out", frame);
    this.socket.send(JSON.stringify(frame));
  }

  beat(every) {
    clearInterval(this.pulse);
    this.pulse = setInterval(() => this.ping(), every);
    this.ping();
  }

  ping() {
    const sent = performance.now();
    const deaf = setTimeout(() => this.heard < sent && this.socket.close(), SILENCE);
    this.request({ type: "ping" }).then(() => {
      clearTimeout(deaf);
      this.state("live", { latency: performance.now() - sent });
    }, () => {});
  }

  // 45xx codes are final; 42xx mean "at once"; everything else backs off, with full jitter so
  // that a thousand clients of one server do not come back in the same instant.
  lost(code) {
    clearInterval(this.pulse);
    for (const { reject } of this.waiting.values()) reject({ code: "closed" });
    this.waiting.clear();
    if (code >= 4500) return this.state("closed", { code });
    const most = Math.min(30000, 500 * 2 ** this.attempt++);
    const delay = code >= 4200 && code < 4300 ? 0 : Math.random() * most;
    this.state("lost", { delay });
    this.timer = setTimeout(() => this.connect(), Math.max(delay, this.pause || 0));
    this.pause = 0;
  }
}

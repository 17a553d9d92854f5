// Socket.IO: plain broadcasts, and its rooms, WebSocket transport, no compression (its default).
import { createSocket } from "node:dgram";
import { createServer } from "node:http";
import { Server } from "socket.io";

const FILLER = "lorem ipsum dolor sit amet consectetur adipiscing elit sed do";
const AT = "2026-01-01T12:00:00.000000+00:00";
const http = createServer();
const io = new Server(http, { transports: ["websocket"] });

io.on("connection", (socket) => {
  socket.on("watch", (klass) => {
    socket.join(`class-${klass}`);
    socket.emit("ok");
  });
});

function frame(number, classes) {
  const klass = number % classes;
  const hex = number.toString(16).padStart(32, "0");
  return {
    type: "event",
    collection: "posts",
    event: "updated",
    document: {
      id: "1",
      data: {
        title: `Post of class ${String(klass).padStart(5, "0")}.`,
        body: `#${number}@${process.hrtime.bigint()}# ${FILLER}`,
        status: `s${klass}`,
        views: klass * 10 + 5,
        owner: String(klass),
        project: "default",
        created_at: AT,
      },
    },
    changed: ["body"],
    subscriptions: ["posts"],
    transaction: hex,
    at: AT,
    cursor: `cG9zdHM.${hex}`,
  };
}

const control = createSocket("udp4");
control.on("message", (payload) => {
  const { first, count, classes } = JSON.parse(payload);
  for (let number = first; number < first + count; number++) {
    const to = classes > 1 ? io.to(`class-${number % classes}`) : io;
    to.emit("event", frame(number, classes));
  }
});
control.bind(Number(process.env.BENCH_CONTROL), "127.0.0.1");
http.listen(Number(process.argv[2]), "127.0.0.1", 4096);

// Two charts of the last minute, one column per second, drawn as SVG.

const SECONDS = 60;
const [WIDTH, HEIGHT] = [600, 200];

function svg(name, attributes, parent) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent?.append(made);
  return made;
}

// Return 1, 2, 5 or 10 times a power of ten: the smallest that is not below the value.
export function nice(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return power * [1, 2, 5, 10].find((each) => each * power >= value);
}

class Chart {
  constructor(place, unit, least) {
    Object.assign(this, { unit, least });
    this.svg = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
    for (const part of [0, 0.5, 1])
      svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: HEIGHT * part, y2: HEIGHT * part }, this.svg);
    this.labels = [1, 0.5].map((part) => {
      const label = document.createElement("span");
      label.dataset.part = part;
      return label;
    });
    const axis = document.createElement("div");
    axis.className = "axis";
    axis.append(...this.labels);
    const time = document.createElement("div");
    time.className = "time";
    time.append(...["a minute ago", "now"].map((text) => {
      const label = document.createElement("span");
      label.textContent = text;
      return label;
    }));
    place.append(axis, this.svg, time);
  }

  scale(values) {
    this.top = nice(Math.max(this.least, ...values));
    for (const label of this.labels)
      label.textContent = `${this.top * label.dataset.part}${this.unit}`;
  }

  y(value) {
    return HEIGHT - (HEIGHT * Math.min(value, this.top)) / this.top;
  }

  x(second) {
    return (WIDTH / SECONDS) * second;
  }
}

export class Bars extends Chart {
  constructor(place) {
    super(place, "", 5);
    this.bars = Array.from({ length: SECONDS }, (_, second) =>
      svg("rect", { class: "bar", x: this.x(second) + 1.5, width: WIDTH / SECONDS - 3 }, this.svg));
  }

  draw(seconds) {
    const counts = seconds.map((each) => each.length);
    this.scale(counts);
    counts.forEach((count, second) => {
      this.bars[second].setAttribute("y", this.y(count));
      this.bars[second].setAttribute("height", HEIGHT - this.y(count));
    });
    this.svg.setAttribute("aria-label", `Events per second in the last minute, at most ${Math.max(...counts)}`);
  }
}

export class Spans extends Chart {
  constructor(place) {
    super(place, " ms", 20);
    this.spans = svg("path", { class: "span" }, this.svg);
    this.dots = svg("path", { class: "dots" }, this.svg);
  }

  draw(seconds) {
    const figures = seconds.map((each) => each.length && [each[0], quantile(each, 0.5), quantile(each, 0.95)]);
    this.scale(figures.filter(Boolean).map(([, , most]) => most));
    let [spans, dots] = ["", ""];
    figures.forEach((each, second) => {
      if (!each) return;
      const x = this.x(second + 0.5);
      spans += `M${x} ${this.y(each[0])}V${this.y(each[2])}`;
      dots += `M${x} ${this.y(each[1])}h.01`;
    });
    this.spans.setAttribute("d", spans);
    this.dots.setAttribute("d", dots);
    const known = figures.filter(Boolean).map(([, median]) => median);
    this.svg.setAttribute("aria-label", known.length
      ? `Median latency of each second in the last minute, between ${Math.round(Math.min(...known))} and ${Math.round(Math.max(...known))} milliseconds`
      : "No latencies in the last minute");
  }
}

// Return a quantile of sorted values.
export const quantile = (values, part) => values[Math.min(values.length - 1, Math.floor(values.length * part))];

// The values of the last minute, grouped by second and sorted. The current second is left out.
export class Minute {
  #seconds = new Map();

  add(value, now = Date.now()) {
    const second = Math.floor(now / 1000);
    if (!this.#seconds.has(second)) this.#seconds.set(second, []);
    this.#seconds.get(second).push(value);
  }

  seconds(now = Date.now()) {
    const first = Math.floor(now / 1000) - SECONDS;
    for (const second of this.#seconds.keys()) if (second < first) this.#seconds.delete(second);
    return Array.from({ length: SECONDS }, (_, index) =>
      [...(this.#seconds.get(first + index) ?? [])].sort((a, b) => a - b));
  }
}

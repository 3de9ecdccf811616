// Tags of a recording: of the whole, at the place that plays, and over time.

const SHOWN = 10; // in the lists
const ROWS = 12; // in the picture

export class TagView {
  /** @param labels names of the model's outputs, in order. */
  constructor(labels, recording, model) {
    this.labels = labels;
    this.recording = recording;
    this.model = model;
    this.find = (id) => document.querySelector(`#${id}`);
    this.canvas = this.find("taggram");
    this.find("all").addEventListener("click", () => this.toggle());
    this.canvas.addEventListener("click", (event) => this.seek(event));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    recording.addEventListener("open", () => this.clear());
    recording.addEventListener("window", ({ detail }) => this.add(detail));
    recording.addEventListener("done", ({ detail }) => this.finish(detail.mean));
    recording.addEventListener("time", () => this.showNow());
    this.clear();
  }

  clear() {
    this.windows = [];
    this.mean = null;
    this.find("save").hidden = true;
    this.show();
  }

  add(window) {
    this.windows.push(window);
    this.scheduled ??= requestAnimationFrame(() => {
      this.scheduled = null;
      this.show();
    });
  }

  finish(mean) {
    this.mean = mean;
    this.show();
    const link = this.find("save");
    URL.revokeObjectURL(link.href);
    link.href = URL.createObjectURL(new Blob([JSON.stringify(this.json(), null, 1)], { type: "application/json" }));
    link.hidden = false;
  }

  /** What `ssl-audio tag --json` writes. */
  json() {
    return {
      file: this.recording.name,
      multi_label: this.model.activation === "sigmoid",
      tags: this.labels,
      mean: Object.fromEntries(this.labels.map((label, i) => [label, this.mean[i]])),
      clips: this.windows.map(({ start, end, values }) => ({ start, end, scores: [...values] })),
    };
  }

  /** Scores of the whole recording, or of what has been heard of it so far. */
  average() {
    if (this.mean) return this.mean;
    const sum = new Float32Array(this.labels.length);
    for (const { values } of this.windows) values.forEach((value, i) => (sum[i] += value));
    return sum.map((value) => value / Math.max(1, this.windows.length));
  }

  /** The window that sounds now: where the player is, or the last one while the microphone is on. */
  current() {
    if (this.recording.stop) return this.windows.at(-1);
    const time = this.recording.audio.currentTime;
    return this.windows.findLast(({ start }) => start <= time);
  }

  show() {
    const average = this.average();
    this.order = this.labels.map((_, i) => i).sort((a, b) => average[b] - average[a]);
    this.list(this.find("whole"), this.windows.length ? average : null);
    this.showNow();
  }

  showNow() {
    const window = this.current();
    this.list(this.find("now"), window?.values);
    this.find("now-title").textContent = window ? `At ${clock(window.start)} to ${clock(window.end)}` : "Now";
    this.draw();
  }

  list(element, values) {
    if (!values) return element.replaceChildren();
    const order = [...this.order].sort((a, b) => values[b] - values[a]);
    const shown = this.find("all").ariaPressed === "true" ? order : order.slice(0, SHOWN);
    while (element.children.length > shown.length) element.lastChild.remove();
    while (element.children.length < shown.length) element.append(item());
    shown.forEach((label, i) => {
      const [name, meter, number] = element.children[i].children;
      name.textContent = name.title = this.labels[label];
      meter.value = values[label];
      meter.setAttribute("aria-label", this.labels[label]);
      number.textContent = `${(100 * values[label]).toFixed(1)} %`;
    });
  }

  toggle() {
    const button = this.find("all");
    button.ariaPressed = String(button.ariaPressed !== "true");
    button.textContent = button.ariaPressed === "true" ? "Show the first tags" : "Show all tags";
    this.show();
  }

  get seconds() {
    return this.windows.at(-1)?.end ?? 0;
  }

  draw() {
    const { canvas } = this;
    const style = getComputedStyle(canvas);
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = width * scale;
    canvas.height = height * scale;
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const rows = this.order.slice(0, ROWS);
    canvas.setAttribute("aria-label", this.describe(rows));
    if (!this.windows.length) return;
    this.left = Math.min(150, width * 0.35);
    const [row, pixels] = [height / rows.length, width - this.left];
    const x = (time) => Math.round(this.left + (time / this.seconds) * pixels);
    pen.font = "13px system-ui, sans-serif";
    pen.textBaseline = "middle";
    rows.forEach((label, i) => {
      pen.globalAlpha = 1;
      pen.fillStyle = style.color;
      pen.fillText(shortened(pen, this.labels[label], this.left - 12), 6, (i + 0.5) * row);
      pen.fillStyle = style.getPropertyValue("--accent");
      this.windows.forEach(({ start, end, values }, j) => {
        const until = Math.min(end, this.windows[j + 1]?.start ?? end);
        pen.globalAlpha = values[label];
        pen.fillRect(x(start), i * row + 1, Math.max(1, x(until) - x(start)), row - 2);
      });
    });
    pen.globalAlpha = 1;
    if (this.recording.stop) return; // what the microphone hears is not played
    pen.fillStyle = style.getPropertyValue("--error");
    pen.fillRect(x(Math.min(this.recording.audio.currentTime, this.seconds)) - 1, 0, 2, height);
  }

  describe(rows) {
    if (!this.windows.length) return "Tags over time: nothing yet";
    const peaks = rows.slice(0, 5).map((label) => {
      const best = this.windows.reduce((a, b) => (b.values[label] > a.values[label] ? b : a));
      return `${this.labels[label]} highest at ${clock(best.start)} (${(100 * best.values[label]).toFixed(0)} %)`;
    });
    return `Tags over time, ${clock(this.seconds)} long: ${peaks.join(", ")}`;
  }

  seek(event) {
    const share = (event.offsetX - this.left) / (this.canvas.clientWidth - this.left);
    if (this.windows.length && share >= 0) this.recording.audio.currentTime = share * this.seconds;
  }
}

function item() {
  const line = document.createElement("li");
  const meter = document.createElement("meter");
  line.append(document.createElement("span"), meter, document.createElement("span"));
  return line;
}

function shortened(pen, text, width) {
  if (pen.measureText(text).width <= width) return text;
  while (text && pen.measureText(`${text}…`).width > width) text = text.slice(0, -1);
  return `${text}…`;
}

function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
}

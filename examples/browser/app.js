// What the page does with a model: tags of a recording, or, without labels, the similarity of two.
// The model is that of `?model=path/to/model.json`, by default model/model.json beside this page.

import { Recording } from "./recording.js";
import { TagView } from "./tags.js";

/** The worker as calls: each analysis has its own receiver of messages. */
class Engine {
  constructor(url) {
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.receivers = new Map();
    this.last = 0;
    this.ready = new Promise((resolve, reject) => {
      this.worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error("onnxruntime-web is not in static/; run: npm ci && npm run build"));
      };
      this.worker.onmessage = ({ data }) => {
        if (data.type === "ready") resolve((this.model = data.model));
        else if (data.id === undefined) reject(new Error(data.text));
        else this.receive(data);
      };
    });
    this.worker.postMessage({ type: "load", url });
  }

  receive(message) {
    const receiver = this.receivers.get(message.id);
    if (message.type !== "window") this.receivers.delete(message.id);
    receiver?.(message);
  }

  /** Ask for an analysis; returns what cancels it. */
  analyse(request, receive) {
    const id = ++this.last;
    this.receivers.set(id, receive);
    this.worker.postMessage({ type: "analyse", id, ...request });
    return () => {
      if (this.receivers.delete(id)) this.worker.postMessage({ type: "cancel", id });
    };
  }
}

function cosine(a, b) {
  const dot = (x, y) => x.reduce((sum, value, i) => sum + value * y[i], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)) || 0;
}

function compare(recordings) {
  const [output, meter] = [document.querySelector("#cosine"), document.querySelector("#cosine-meter")];
  const embeddings = new Map();
  const show = () => {
    meter.hidden = embeddings.size < 2;
    if (embeddings.size < 2) return void (output.textContent = "Give both recordings.");
    const [a, b] = recordings.map((recording) => embeddings.get(recording));
    meter.value = cosine(a, b);
    output.textContent = meter.value.toFixed(4);
  };
  for (const recording of recordings) {
    recording.addEventListener("open", () => (embeddings.delete(recording), show()));
    recording.addEventListener("done", ({ detail }) => (embeddings.set(recording, detail.mean), show()));
  }
}

function build(engine) {
  const { labels, dim, sample_rate, window_seconds } = engine.model;
  const titles = labels ? ["Recording"] : ["First voice", "Second voice"];
  const recordings = titles.map((title) => new Recording(title, engine));
  document.querySelector("#recordings").append(...recordings.map((recording) => recording.section));
  document.querySelector(labels ? "#tags" : "#similarity").hidden = false;
  const what = labels ? `${labels.length} tags` : `embeddings of ${dim} numbers`;
  document.querySelector("#title").textContent = labels ? "Tags of a recording" : "Two voices compared";
  document.querySelector("#model").textContent = `${what}, ${sample_rate} Hz, windows of ${window_seconds.toFixed(1)} s`;
  if (labels) new TagView(labels, recordings[0], engine.model);
  else compare(recordings);
}

const status = document.querySelector("#model");
const url = new URL(new URLSearchParams(location.search).get("model") ?? "model/model.json", location.href);
const engine = new Engine(url.href);
engine.ready.then(
  () => build(engine),
  (error) => {
    status.textContent = error.message;
    status.classList.add("error");
  },
);
// A file dropped beside the zone would replace the page.
for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());

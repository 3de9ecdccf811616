// What the page does with a model: tags of a recording, or, without labels, the similarity of two.
// The model is that of `?model=path/to/model.json`, by default model/model.json beside this page.

import { cosine, decision, score, warnings } from "./calibration.js";
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

function compare(recordings, { calibration, window_seconds }) {
  const find = (id) => document.querySelector(`#${id}`);
  const [output, meter, answer, prior, list] = ["cosine", "cosine-meter", "answer", "prior", "warnings"].map(find);
  const heard = new Map();
  find("decision").hidden = !calibration;
  find("uncalibrated").hidden = Boolean(calibration);
  const show = () => {
    meter.hidden = heard.size < 2;
    list.replaceChildren();
    answer.textContent = "";
    if (heard.size < 2) return void (output.textContent = "Give both recordings.");
    const clips = recordings.map((recording) => heard.get(recording));
    const value = score(clips[0].mean, clips[1].mean, calibration);
    meter.value = cosine(clips[0].mean, clips[1].mean);
    output.textContent = value.toFixed(4);
    for (const warning of warnings(clips, value, calibration, window_seconds)) {
      list.append(Object.assign(document.createElement("li"), { textContent: warning }));
    }
    if (!calibration) return;
    const before = Number(prior.value);
    if (!(before > 0 && before < 1)) return void (answer.textContent = "The prior must lie between 0 and 1.");
    const found = decision(value, clips.map((clip) => clip.seconds), before, calibration);
    const [low, high] = found.between.map((x) => x.toFixed(3));
    answer.textContent = `Probability ${found.probability.toFixed(3)} (${low} to ${high}) that both are one person`;
    find("llr").textContent = `Log-likelihood ratio ${found.llr.toFixed(2)}
      (${found.interval.map((x) => x.toFixed(2)).join(" to ")}); ${(100 * found.falseAccepts).toPrecision(2)} % of pairs of
      different people score as high.`;
  };
  prior.addEventListener("input", show);
  for (const recording of recordings) {
    recording.addEventListener("open", () => (heard.delete(recording), show()));
    recording.addEventListener("done", ({ detail }) => (heard.set(recording, { name: recording.name, ...detail }), show()));
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
  else compare(recordings, engine.model);
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

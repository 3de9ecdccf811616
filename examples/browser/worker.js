// The model, off the page's thread: recordings in, a row of numbers for each window out.
//
// Messages in:  { type: "load", url } of a model.json, { type: "analyse", id, file | samples + rate }, { type: "cancel", id }
// Messages out: { type: "ready", model }, { type: "window", id, start, end, values, done, total },
//               { type: "done", id, mean, windows, seconds, level, clipped } (the last two for pairs of voices), { type: "cancelled", id }, { type: "error", id, text }

import { Resampler, samplesSource, wavSource } from "./audio.js";
import { levelOf } from "./level.js";
import * as ort from "./static/ort.wasm.min.mjs";

ort.env.wasm.numThreads = 1; // more need headers that plain file servers do not send
ort.env.wasm.wasmPaths = new URL("./static/", import.meta.url).href;
ort.env.logLevel = "error";

const cancelled = new Set();
let model = null;
let session = null;
let queue = Promise.resolve();

self.onmessage = ({ data }) => {
  if (data.type === "cancel") return void cancelled.add(data.id);
  const job = data.type === "load" ? () => load(data.url) : () => analyse(data);
  queue = queue.then(job).catch((error) => postMessage({ type: "error", id: data.id, text: message(error) }));
};

async function load(url) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Error(`there is no ${url}; README.md says how to export a model for this page`);
  model = await answer.json();
  const graph = await fetch(new URL(model.model, url));
  if (!graph.ok) throw new Error(`${url} names ${model.model}, which is not there`);
  session = await ort.InferenceSession.create(new Uint8Array(await graph.arrayBuffer()));
  postMessage({ type: "ready", model });
}

async function analyse({ id, file, samples, rate }) {
  if (!session) throw new Error("there is no model");
  const source = samples ? samplesSource(samples, rate) : await wavSource(file);
  if (!source.frames) throw new Error("the recording holds no audio");
  const resampler = new Resampler(source.rate, model.sample_rate);
  const clips = windows(source, resampler);
  const sum = new Float64Array(model.dim);
  for (const [index, { start, count }] of clips.entries()) {
    await new Promise((done) => setTimeout(done)); // lets a cancellation in
    if (cancelled.delete(id)) return postMessage({ type: "cancelled", id });
    const clip = leveled(lengthen(await resampler.read(source, start, count), model.minimum_samples));
    const values = activate(await forward(clip));
    values.forEach((value, i) => (sum[i] += value));
    const [from, to] = [start / model.sample_rate, (start + count) / model.sample_rate];
    postMessage({ type: "window", id, start: from, end: to, values, done: index + 1, total: clips.length });
  }
  const mean = Float32Array.from(sum, (value) => value / clips.length);
  const heard = model.labels ? {} : await levelOf(source);
  postMessage({ type: "done", id, mean, windows: clips.length, seconds: source.frames / source.rate, ...heard });
}

/** Windows that cover the recording; the last ends with it, and a shorter recording is one window of its own length. */
function windows(source, resampler) {
  const window = Math.round(model.window_seconds * model.sample_rate);
  const total = Math.floor((source.frames * resampler.up) / resampler.down);
  if (total <= window) return [{ start: 0, count: resampler.length(source.frames) || 1 }];
  const starts = [];
  for (let start = 0; start + window <= total; start += window) starts.push(start);
  if (starts.at(-1) + window < total) starts.push(total - window);
  return starts.map((start) => ({ start, count: window }));
}

/** A clip shorter than the model takes is repeated until it is long enough. */
function lengthen(clip, minimum) {
  return clip.length >= minimum ? clip : Float32Array.from({ length: minimum }, (_, i) => clip[i % clip.length]);
}

/** The clip at the level that the model expects; the graph of most models sets it itself. */
function leveled(clip) {
  if (model.level !== "peak" || model.level_in_graph) return clip;
  const peak = clip.reduce((largest, sample) => Math.max(largest, Math.abs(sample)), 0);
  return peak > 0 ? clip.map((sample) => sample / peak) : clip;
}

async function forward(clip) {
  const input = new ort.Tensor("float32", clip, [1, clip.length]);
  const outputs = await session.run({ [session.inputNames[0]]: input });
  const output = outputs[session.outputNames[0]];
  const values = Float32Array.from(output.data);
  output.dispose();
  return values;
}

function activate(values) {
  if (model.activation === "sigmoid") return values.map((value) => 1 / (1 + Math.exp(-value)));
  if (model.activation !== "softmax") return values;
  const largest = Math.max(...values);
  const powers = values.map((value) => Math.exp(value - largest));
  const sum = powers.reduce((total, power) => total + power);
  return powers.map((power) => power / sum);
}

const message = (error) => String(error?.message ?? error);

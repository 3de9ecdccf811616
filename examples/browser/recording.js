// One recording on the page: where it comes from (a file, dropped or chosen, or the microphone), to hear it, and how far
// its analysis is. It knows nothing of tags or similarity.

import { rateOf, wavBlob, wavSource } from "./audio.js";

const LONGEST_MICROPHONE = 600; // seconds

export class Recording extends EventTarget {
  // Events: "open" (a new recording), "window" (detail: of the worker), "done" (detail: of the worker), "time" (it plays)

  /** @param engine { model, analyse(request, receive) -> cancel } */
  constructor(title, engine) {
    super();
    this.engine = engine;
    this.section = document.querySelector("#recording").content.cloneNode(true).firstElementChild;
    const find = (selector) => this.section.querySelector(selector);
    this.audio = find("audio");
    this.work = find(".work");
    this.progress = find("progress");
    this.microphone = find(".microphone");
    this.status = find(".status");
    this.cancel = () => {};
    this.starting = false; // waits for the microphone
    this.stop = null; // ends a recording in progress
    this.turn = 0; // which opening is the current one: later ones replace earlier ones

    find("h2").textContent = title;
    this.audio.setAttribute("aria-label", `${title}: play`);
    this.progress.setAttribute("aria-label", `${title}: progress`);
    find(".cancel").setAttribute("aria-label", `${title}: cancel`);
    this.microphone.setAttribute("aria-pressed", "false");
    const input = find("input");
    input.setAttribute("aria-label", `${title}: choose an audio file`);
    input.addEventListener("change", () => input.files.length && this.open(input.files[0]));
    find(".cancel").addEventListener("click", () => this.cancel());
    this.microphone.addEventListener("click", () => (this.stop ? this.stop() : this.record()));
    for (const name of ["timeupdate", "seeked"]) {
      this.audio.addEventListener(name, () => this.dispatchEvent(new Event("time")));
    }
    this.listenForDrops(find(".drop"));
  }

  listenForDrops(zone) {
    for (const name of ["dragenter", "dragover"]) {
      zone.addEventListener(name, (event) => {
        event.preventDefault();
        zone.classList.add("over");
      });
    }
    zone.addEventListener("dragleave", () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      zone.classList.remove("over");
      if (event.dataTransfer.files.length) this.open(event.dataTransfer.files[0]);
    });
  }

  say(text, isError = false) {
    this.status.textContent = text;
    this.status.classList.toggle("error", isError);
  }

  /** Hear and analyse a file; a recording that was being analysed is dropped. */
  async open(file) {
    const turn = ++this.turn;
    this.cancel();
    URL.revokeObjectURL(this.audio.src);
    this.audio.src = URL.createObjectURL(file);
    this.audio.hidden = false;
    this.name = file.name;
    this.dispatchEvent(new Event("open"));
    this.say(`Reading ${file.name} …`);
    let request;
    try {
      request = await this.decode(file);
    } catch (error) {
      if (turn === this.turn) this.say(`${file.name}: ${error.message}`, true);
      return;
    }
    if (turn === this.turn) this.analyse(request);
  }

  analyse(request) {
    this.progress.value = 0;
    this.work.hidden = false;
    this.say(`Analysing ${this.name} …`);
    const cancel = this.engine.analyse(request, (message) => {
      if (message.type === "window") {
        this.progress.value = message.done / message.total;
        this.dispatchEvent(new CustomEvent("window", { detail: message }));
        return;
      }
      this.cancel = () => {};
      this.work.hidden = true;
      if (message.type === "error") this.say(`${this.name}: ${message.text}`, true);
      if (message.type === "cancelled") this.say(`${this.name}: cancelled`);
      if (message.type !== "done") return;
      this.say(`${this.name}: done, ${message.windows} ${message.windows === 1 ? "window" : "windows"}`);
      this.dispatchEvent(new CustomEvent("done", { detail: message }));
    });
    this.cancel = () => {
      cancel();
      this.cancel = () => {};
      this.work.hidden = true;
      this.say(`${this.name}: cancelled`);
    };
  }

  /** What the worker takes: a WAV file as it is, to be read in parts; anything else decoded, the mean of its channels. */
  async decode(file) {
    if (await wavSource(file)) return { file };
    const data = await file.arrayBuffer();
    // A context at the file's own rate decodes without resampling; the worker resamples as Python does.
    const rate = rateOf(new Uint8Array(data)) ?? this.engine.model.sample_rate;
    let buffer;
    try {
      buffer = await new OfflineAudioContext(1, 1, rate).decodeAudioData(data);
    } catch {
      throw new Error("this browser cannot decode it as audio; WAV, FLAC, Ogg and MP3 work, long files best as WAV");
    }
    const samples = buffer.getChannelData(0).slice();
    for (let channel = 1; channel < buffer.numberOfChannels; channel++) {
      const other = buffer.getChannelData(channel);
      for (let i = 0; i < samples.length; i++) samples[i] += other[i];
    }
    for (let i = 0; i < samples.length; i++) samples[i] /= buffer.numberOfChannels;
    return { samples, rate: buffer.sampleRate };
  }

  /** Record until `stop`, analysing the last window again and again; what was recorded is then opened like a file. */
  async record() {
    if (this.starting) return;
    this.starting = true;
    let stream, context;
    try {
      if (!navigator.mediaDevices) throw new Error("browsers give the microphone to https and localhost pages only");
      const audio = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
      stream = await navigator.mediaDevices.getUserMedia({ audio });
      context = new AudioContext();
      await context.audioWorklet.addModule("recorder.js");
    } catch (error) {
      stream?.getTracks().forEach((track) => track.stop());
      context?.close();
      return this.say(`No microphone: ${error.message}`, true);
    } finally {
      this.starting = false;
    }
    this.turn++;
    this.cancel();
    this.audio.pause();
    this.name = "microphone";
    this.dispatchEvent(new Event("open"));
    this.microphone.textContent = "Stop";
    this.microphone.setAttribute("aria-pressed", "true");

    const blocks = [];
    const rate = context.sampleRate;
    const node = new AudioWorkletNode(context, "recorder");
    context.createMediaStreamSource(stream).connect(node).connect(context.destination); // it adds silence
    node.port.onmessage = ({ data }) => {
      blocks.push(data);
      const seconds = (blocks.length * data.length) / rate;
      this.say(`Recording: ${seconds.toFixed(0)} s`);
      this.listen(blocks, rate, seconds);
      if (seconds > LONGEST_MICROPHONE) this.stop?.();
    };
    this.stop = () => {
      this.stop = null;
      node.port.onmessage = null;
      stream.getTracks().forEach((track) => track.stop());
      context.close();
      this.microphone.textContent = "Use the microphone";
      this.microphone.setAttribute("aria-pressed", "false");
      if (blocks.length) this.open(new File([wavBlob(joined(blocks), rate)], "microphone.wav"));
      else this.say("The microphone gave nothing", true);
    };
  }

  /** Analyse the last window while the microphone is on, one at a time. */
  listen(blocks, rate, seconds) {
    if (this.listening || seconds < this.engine.model.window_seconds) return;
    this.listening = true;
    const count = Math.ceil((this.engine.model.window_seconds * rate) / blocks[0].length) + 1;
    const samples = joined(blocks.slice(-count)).slice(-Math.ceil(this.engine.model.window_seconds * rate));
    this.engine.analyse({ samples, rate }, (message) => {
      if (message.type === "window") {
        const detail = { ...message, start: seconds - message.end, end: seconds };
        if (this.stop) this.dispatchEvent(new CustomEvent("window", { detail }));
      } else {
        this.listening = false;
      }
    });
  }
}

function joined(blocks) {
  const whole = new Float32Array(blocks.reduce((sum, block) => sum + block.length, 0));
  blocks.reduce((at, block) => (whole.set(block, at), at + block.length), 0);
  return whole;
}

// Samples of a recording at the model's rate, the same numbers that ssl_audio reads from the file in Python.
//
// A source is { rate, frames, read(start, count) }: mono float32 at its own rate, zeros outside of the recording.

/** Mono samples in memory. */
export function samplesSource(samples, rate) {
  return {
    rate,
    frames: samples.length,
    async read(start, count) {
      const part = new Float32Array(count);
      const first = Math.max(0, start);
      const last = Math.min(samples.length, start + count);
      if (last > first) part.set(samples.subarray(first, last), first - start);
      return part;
    },
  };
}

/** A WAV file, read in parts, so that its length does not matter. Null if it is not WAV or of an unknown encoding. */
export async function wavSource(file) {
  const layout = await wavLayout(file);
  if (layout === null) return null;
  const { rate, channels, bytes, data, frames, sample } = layout;
  return {
    rate,
    frames,
    async read(start, count) {
      const part = new Float32Array(count);
      const first = Math.max(0, start);
      const last = Math.min(frames, start + count);
      if (last <= first) return part;
      const frame = bytes * channels;
      const view = new DataView(await file.slice(data + first * frame, data + last * frame).arrayBuffer());
      for (let i = first; i < last; i++) {
        let sum = 0;
        for (let c = 0; c < channels; c++) sum += sample(view, ((i - first) * channels + c) * bytes);
        if (!Number.isFinite(sum)) throw new Error("the file holds NaN or infinite samples");
        part[i - start] = sum / channels;
      }
      return part;
    },
  };
}

const SAMPLE = {
  "1/8": (view, at) => (view.getUint8(at) - 128) / 128,
  "1/16": (view, at) => view.getInt16(at, true) / 2 ** 15,
  "1/24": (view, at) => ((view.getInt8(at + 2) << 16) | view.getUint16(at, true)) / 2 ** 23,
  "1/32": (view, at) => view.getInt32(at, true) / 2 ** 31,
  "3/32": (view, at) => view.getFloat32(at, true),
  "3/64": (view, at) => view.getFloat64(at, true),
};

async function wavLayout(file) {
  const part = async (start, count) => new DataView(await file.slice(start, start + count).arrayBuffer());
  const name = (view, at) => String.fromCharCode(...[0, 1, 2, 3].map((i) => view.getUint8(at + i)));
  const head = await part(0, 12);
  if (head.byteLength < 12 || name(head, 0) !== "RIFF" || name(head, 8) !== "WAVE") return null;
  let format = null;
  for (let at = 12; at + 8 <= file.size; ) {
    const chunk = await part(at, 8);
    const size = chunk.getUint32(4, true);
    if (name(chunk, 0) === "fmt ") {
      const view = await part(at + 8, Math.min(size, 40));
      const tag = view.getUint16(0, true);
      format = {
        tag: tag === 0xfffe && view.byteLength >= 26 ? view.getUint16(24, true) : tag, // extensible: in its GUID
        channels: view.getUint16(2, true),
        rate: view.getUint32(4, true),
        bits: view.getUint16(14, true),
      };
    }
    if (name(chunk, 0) === "data" && format) {
      const { tag, channels, rate, bits } = format;
      const sample = SAMPLE[`${tag}/${bits}`];
      if (!sample || !channels || !rate) return null;
      const available = Math.min(size, file.size - at - 8); // headers of streams promise too much
      const frames = Math.floor(available / (channels * (bits / 8)));
      return { rate, channels, bytes: bits / 8, data: at + 8, frames, sample };
    }
    at += 8 + size + (size % 2);
  }
  return null;
}

/** Mono float32 WAV, for what the microphone gave. */
export function wavBlob(samples, rate) {
  const view = new DataView(new ArrayBuffer(44));
  const text = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  view.setUint32(4, 36 + 4 * samples.length, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true);
  view.setUint16(20, 3, true); // floating point
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 4 * rate, true);
  view.setUint16(32, 4, true);
  view.setUint16(34, 32, true);
  text(36, "data");
  view.setUint32(40, 4 * samples.length, true);
  return new Blob([view, samples], { type: "audio/wav" });
}

/** The sample rate in the header of a FLAC, Ogg or MP3 file; null if unknown. */
export function rateOf(bytes) {
  const is = (at, letters) => [...letters].every((letter, i) => bytes[at + i] === letter.charCodeAt(0));
  if (is(0, "fLaC")) return (bytes[18] << 12) | (bytes[19] << 4) | (bytes[20] >> 4) || null;
  if (is(0, "OggS")) {
    const at = 27 + bytes[26];
    if (is(at, "OpusHead")) return 48000;
    if (is(at + 1, "vorbis")) return bytes[at + 12] | (bytes[at + 13] << 8) | (bytes[at + 14] << 16);
    return null;
  }
  let at = 0;
  if (is(0, "ID3")) at = 10 + ((bytes[6] << 21) | (bytes[7] << 14) | (bytes[8] << 7) | bytes[9]);
  for (const end = Math.min(bytes.length - 4, at + 8192); at < end; at++) {
    const version = (bytes[at + 1] >> 3) & 3; // 3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5
    const layer = (bytes[at + 1] >> 1) & 3;
    const rate = [44100, 48000, 32000][(bytes[at + 2] >> 2) & 3];
    if (bytes[at] === 0xff && bytes[at + 1] >= 0xe0 && version !== 1 && layer !== 0 && rate) {
      return rate / { 3: 1, 2: 2, 0: 4 }[version];
    }
  }
  return null;
}

// As soxr's quality HQ, with which ssl_audio reads files: flat to PASS of the lower Nyquist frequency, gone above it.
const PASS = 0.9136;
const ATTENUATION = 132; // decibel

/** Band-limited interpolation by a sinc under a Kaiser window, one filter for each phase of the output. */
export class Resampler {
  constructor(fromRate, toRate) {
    const divisor = gcd(fromRate, toRate);
    this.down = fromRate / divisor;
    this.up = toRate / divisor;
    const lower = Math.min(1, this.up / this.down); // Nyquist frequencies as shares of the input's
    this.cutoff = ((PASS + 1) / 2) * lower;
    this.half = (ATTENUATION - 7.95) / (2.285 * Math.PI * (1 - PASS) * lower) / 2; // input samples on each side
    this.width = Math.ceil(this.half);
    this.beta = 0.1102 * (ATTENUATION - 8.7);
    this.filters = new Map();
  }

  filter(phase) {
    if (!this.filters.has(phase)) {
      const taps = new Float64Array(2 * this.width + 2);
      for (let k = 0; k < taps.length; k++) {
        const time = k - this.width - phase / this.up;
        const share = 1 - (time / this.half) ** 2;
        if (share > 0) {
          const window = besselI0(this.beta * Math.sqrt(share)) / besselI0(this.beta);
          taps[k] = sinc(time * this.cutoff) * this.cutoff * window;
        }
      }
      this.filters.set(phase, taps);
    }
    return this.filters.get(phase);
  }

  /** `count` samples from `start` on, counted at the new rate; the same whatever part of the source is asked for. */
  async read(source, start, count) {
    if (this.up === this.down) return source.read(start, count);
    const first = Math.floor((start * this.down) / this.up) - this.width;
    const last = Math.floor(((start + count - 1) * this.down) / this.up) + this.width + 1;
    const input = await source.read(first, last - first + 1);
    const output = new Float32Array(count);
    for (let i = 0; i < count; i++) {
      const position = (start + i) * this.down;
      const taps = this.filter(position % this.up);
      const at = Math.floor(position / this.up) - this.width - first;
      let sum = 0;
      for (let k = 0; k < taps.length; k++) sum += taps[k] * input[at + k];
      output[i] = sum;
    }
    return output;
  }

  /** How many samples come of `frames`, rounded like soxr. */
  length(frames) {
    return Math.floor((frames * this.up) / this.down + 0.5);
  }
}

const gcd = (a, b) => (b ? gcd(b, a % b) : a);
const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

function besselI0(x) {
  let term = 1;
  let sum = 1;
  for (let k = 1; term > 1e-17 * sum; k++) {
    term *= (x / 2 / k) ** 2;
    sum += term;
  }
  return sum;
}

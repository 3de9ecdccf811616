// Level and clipping of a recording, as ssl_audio/decisions/clips.py has them.

const BLOCK = 1 << 16; // samples at a time
const RUN = 4; // samples that stand still at an extreme
const SHARE = 1e-3; // of all samples, from which on a recording is clipped
const PEAK = 0.1; // below which nothing is called clipped

/** { level: root mean square in dB of full scale, clipped } of a source (see audio.js). */
export async function levelOf(source) {
  let [low, high, power] = [Infinity, -Infinity, 0];
  for await (const block of blocks(source)) {
    for (const value of block) {
      low = Math.min(low, value);
      high = Math.max(high, value);
      power += value * value;
    }
  }
  const level = power ? 10 * Math.log10(power / source.frames) : -Infinity;
  if (Math.max(-low, high) < PEAK) return { level, clipped: false };
  let stuck = 0;
  let [run, last] = [0, NaN];
  const end = () => (stuck += run >= RUN ? run : 0);
  for await (const block of blocks(source)) {
    for (const value of block) {
      if ((value === low || value === high) && value === last) run++;
      else {
        end();
        run = value === low || value === high ? 1 : 0;
      }
      last = value;
    }
  }
  end();
  return { level, clipped: stuck > SHARE * source.frames };
}

async function* blocks(source) {
  for (let start = 0; start < source.frames; start += BLOCK) {
    yield await source.read(start, Math.min(BLOCK, source.frames - start));
  }
}

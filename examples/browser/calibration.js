// What a model's calibration says of two embeddings, as `ssl_audio.compare` does. `facts` is `calibration` of model.json.

const TOP = 300; // closest recordings of the cohort that adaptive s-norm uses

const clip = (value, [low, high]) => Math.min(Math.max(value, low), high);
const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
export const cosine = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b)) || 0;

/** The cosine, normalised with the calibration's cohort if it has one. */
export function score(a, b, facts) {
  const plain = cosine(a, b);
  if (!facts?.normalization) return plain;
  const side = (x) => {
    let scores = facts.cohort.map((row) => cosine(row, x)).sort((p, q) => q - p);
    if (facts.normalization === "as") scores = scores.slice(0, TOP);
    const mean = scores.reduce((sum, value) => sum + value, 0) / scores.length;
    const variance = scores.reduce((sum, value) => sum + (value - mean) ** 2, 0) / scores.length;
    return (plain - mean) / Math.sqrt(variance);
  };
  return facts.normalization === "z" ? side(a) : (side(a) + side(b)) / 2;
}

/** Log-likelihood ratio, its 95 % interval over the calibration's people, probability at a prior, false-accept rate. */
export function decision(value, seconds, prior, facts) {
  const s = clip(value, facts.score_range);
  const logs = seconds.map((length) => Math.log(clip(length, facts.length_range)));
  const mean = (logs[0] + logs[1]) / 2;
  const inputs = facts.uses_length ? [mean, Math.abs(logs[0] - logs[1]), mean * s] : [];
  const line = (scale, offset, weights) => weights.reduce((sum, w, i) => sum + w * inputs[i], scale * s + offset);
  const llr = line(facts.scale, facts.offset, facts.weights);
  const refits = facts.refits.map(([scale, offset, ...weights]) => line(scale, offset, weights)).sort((p, q) => p - q);
  const interval = [0.025, 0.975].map((share) => quantile(refits, share));
  const probability = (ratio) => 1 / (1 + Math.exp(-ratio - Math.log(prior / (1 - prior))));
  return {
    llr,
    interval,
    probability: probability(llr),
    between: interval.map(probability),
    falseAccepts: falseAccepts(value, facts.uses_length ? mean : 0, facts.different_people),
  };
}

function quantile(sorted, share) {
  const at = share * (sorted.length - 1);
  const below = Math.floor(at);
  return sorted[below] + (at - below) * ((sorted[below + 1] ?? sorted[below]) - sorted[below]);
}

/** Share of the pairs of different people that score as high. */
function falseAccepts(value, mean, { mean: centre, log_deviation: spread, rates, quantiles }) {
  const reached = (value - centre[0] - centre[1] * mean) / Math.exp(spread[0] + spread[1] * mean);
  if (reached >= quantiles[0]) return rates[0];
  if (reached <= quantiles.at(-1)) return rates.at(-1);
  const i = quantiles.findIndex((limit) => limit <= reached); // descending
  const share = (reached - quantiles[i]) / (quantiles[i - 1] - quantiles[i]);
  return Math.exp(Math.log(rates[i]) + share * (Math.log(rates[i - 1]) - Math.log(rates[i])));
}

/** Sentences that a person needs before a decision is believed; `clips` have { name, seconds, level, clipped, mean }. */
export function warnings(clips, value, facts, window) {
  const found = [];
  const shortest = facts?.length_range[0] > 0 ? facts.length_range[0] : 1;
  for (const { name, seconds, level, clipped } of clips) {
    if (seconds < 0.99 * shortest) found.push(`${name} is short: ${seconds.toFixed(2)} s`);
    if (seconds > 1.01 * window) found.push(`${name} is longer than a window of the model: its windows are averaged`);
    if (level < -60) found.push(`${name} is nearly silent: ${level.toFixed(0)} dB of full scale`);
    if (clipped) found.push(`${name} is clipped`);
  }
  if (cosine(clips[0].mean, clips[1].mean) > 0.99999) found.push("both hold the same audio");
  if (facts && (value < facts.score_range[0] || value > facts.score_range[1])) {
    const range = facts.score_range.map((limit) => limit.toFixed(3)).join(" to ");
    found.push(`the score ${value.toFixed(3)} lies outside of ${range}, which the calibration saw`);
  }
  return found;
}

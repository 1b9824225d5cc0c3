// One number in [0, 1] for an answer, a box or a mask, made of its tokens' probabilities: as `engine/scores.py`.

const TINY = 1e-9;

export function textScore(answer) {
  return Math.exp(Math.min(0, answer.logprob) / Math.max(1, answer.ids.length + (answer.stop === "eos" ? 1 : 0)));
}

// `separates`: tells the tokens that stand between objects.
export function boxScore(answer, found, separates) {
  const { probs, kinds } = answer;
  const goingOn = product(before(answer.ids, found.start, separates).map((i) => probs[i]));
  const label = product(probs.slice(found.labelStart, found.end));
  const coordinates = mean([0, 1, 2, 3].map((i) => probs[found.start + i] / Math.max(kinds[found.start + i], TINY)));
  return Math.min(goingOn * kinds[found.start] * label * coordinates, 1);
}

export function maskScore(answer, found, separates) {
  return boxScore(answer, found, separates) * mean(found.codes.map((_, i) => answer.probs[found.start + 4 + i]));
}

// `pair`: a and b of Platt's scaling, or none.
export function calibrated(score, pair) {
  if (!pair) return score;
  const clipped = Math.min(Math.max(score, TINY), 1 - TINY);
  return 1 / (1 + Math.exp(Math.min(-pair[0] * Math.log(clipped / (1 - clipped)) - pair[1], 700)));
}

// The tokens that led on to the object at `start`: the separator and what follows it, a blank at most.
function before(ids, start, separates) {
  for (let i = start - 1; i > Math.max(start - 3, -1); i--) {
    if (separates(ids[i])) return Array.from({ length: start - i }, (_, j) => i + j);
  }
  return [];
}

const product = (values) => values.reduce((a, b) => a * b, 1);

function mean(values) {
  return Math.exp(values.reduce((sum, value) => sum + Math.log(Math.min(Math.max(value, TINY), 1)), 0) / values.length);
}

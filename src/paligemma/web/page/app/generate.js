// Prompt in, ids out: the likeliest token of those allowed, until the answer ends. With the probabilities that scores are made of.

// network: see network.js. grammar: limits what may come next, or null. loc: the locations' ids; window: bins that count as the same place.
// onToken is called with the ids so far; stopped() ends the answer early. Returns {ids, probs, kinds, logprob, stop}.
export async function generate(network, soft, prompt, { maxTokens, eos, loc, window, grammar, onToken, stopped }) {
  const answer = { ids: [], probs: [], kinds: [], logprob: 0, stop: null };
  let logits = await network.begin(soft, prompt);
  for (;;) {
    let allowed = grammar ? grammar.allowed() : [[0, logits.length]];
    if (!allowed.length) allowed = [[eos, eos + 1]];
    if (allowed.length === 1 && allowed[0][0] === eos && allowed[0][1] === eos + 1) answer.stop = "grammar";
    else if (answer.ids.length >= maxTokens) answer.stop = "length";
    else if (stopped?.()) answer.stop = "stopped";
    if (answer.stop) break;
    const one = choose(logits, allowed, loc, window);
    if (!Number.isFinite(one.logprob)) throw new Error("The model computes numbers that are none. Try another browser or computer.");
    answer.logprob += one.logprob;
    if (one.id === eos) {
      answer.stop = "eos";
      break;
    }
    answer.ids.push(one.id);
    answer.probs.push(one.prob);
    answer.kinds.push(one.kind);
    grammar?.advance(one.id);
    await onToken?.(answer.ids);
    logits = await network.extend(one.id);
  }
  network.forget();
  return answer;
}

// The likeliest id of those in the ranges; its probability among them, of a location with its neighbours; the mass of its kind.
export function choose(logits, allowed, loc, window) {
  let id = -1;
  for (const [start, stop] of allowed) for (let i = start; i < stop; i++) if (id < 0 || logits[i] > logits[id]) id = i;
  const mass = (low, high) => {
    let sum = 0;
    for (const [start, stop] of allowed) {
      for (let i = Math.max(start, low); i < Math.min(stop, high); i++) sum += Math.exp(logits[i] - logits[id]);
    }
    return sum;
  };
  const total = mass(0, logits.length);
  const logprob = -Math.log(total);
  const located = mass(loc[0], loc[1]) / total;
  if (id < loc[0] || id >= loc[1]) return { id, logprob, prob: Math.exp(logprob), kind: 1 - located };
  const near = mass(Math.max(loc[0], id - window), Math.min(loc[1], id + window + 1)) / total;
  return { id, logprob, prob: near, kind: located };
}

// Which token may come next in an answer of detect or segment, as `tasks/grammar.py`, where labels are the names asked for.
//
//   answer = nothing | object (separator object)*        object = y0 x0 y1 x1 [16 codes] label,   y1 > y0, x1 > x0
//
// Labels are not spelled by rule: whole example answers are encoded and cut at the locations. No object may come twice.

export class Grammar {
  // `masks`: codes follow each box. `facts`: "objects" of web.json.
  constructor(tokenizer, names, masks, facts) {
    Object.assign(this, { tokenizer, masks, facts });
    this.tree = node();
    for (const name of names) {
      const [more, last] = this.spellings(name);
      const label = last.join();
      add(this.tree, last, { label, more: false });
      add(this.tree, more, { label, more: true });
    }
    this.labels = new Set(this.tree.leaves.map((leaf) => leaf.label)).size;
    Object.assign(this, { bins: [], codes: 0, node: null, found: [], ended: false });
  }

  // Ids between two objects, and after the last one, where both have this name.
  spellings(name) {
    const { tokenizer } = this;
    const text = (range, numbers) => tokenizer.decode(numbers.map((number) => range[0] + number));
    const codes = this.masks ? text(tokenizer.seg, Array(this.facts.codes).fill(0)) : "";
    const one = `${text(tokenizer.loc, [0, 0, 1, 1])}${codes} ${name}`;
    const ids = tokenizer.encode(one + this.facts.separator + one);
    const size = 4 + (this.masks ? this.facts.codes : 0);
    const second = ids.findIndex((id, i) => i >= size && tokenizer.isLocation(id));
    return [ids.slice(size, second), ids.slice(second + size)];
  }

  // Ranges [start, stop) of ids, sorted and apart; none where the answer has ended.
  allowed() {
    const { eos, loc, seg } = this.tokenizer;
    if (this.ended) return [];
    if (this.bins.length < 4) {
      const ids = this.locations(this.bins, this.found);
      if (!this.found.length && !this.bins.length) ids.push([eos, eos + 1]);
      return joined(ids);
    }
    if (this.masks && this.codes < this.facts.codes) return [seg];
    const last = this.found.length + 1 >= this.facts.most;
    const open = (leaf) => !this.has(this.bins, leaf.label) && !(leaf.more && last);
    const ids = [...this.node.children].filter(([, child]) => child.leaves.some(open)).map(([id]) => [id, id + 1]);
    for (const leaf of this.node.here.filter(open)) {
      ids.push(...(leaf.more ? this.locations([], [...this.found, this.object()]) : [[eos, eos + 1]]));
    }
    return joined(ids);
  }

  // One more token, which must be allowed.
  advance(id) {
    const { tokenizer } = this;
    if (id === tokenizer.eos) {
      this.ended = true;
    } else if (tokenizer.isLocation(id)) {
      if (this.bins.length === 4) {
        this.found.push(this.object());
        Object.assign(this, { bins: [], codes: 0 });
      }
      this.bins = [...this.bins, id - tokenizer.loc[0]];
      this.node = this.bins.length === 4 ? this.tree : null;
    } else if (tokenizer.isCode(id)) {
      this.codes += 1;
    } else {
      this.node = this.node.children.get(id);
    }
  }

  // The object that is being written, whose label is complete.
  object() {
    const labels = this.node.here.filter((leaf) => leaf.more && !this.has(this.bins, leaf.label)).map((leaf) => leaf.label);
    return { bins: this.bins, label: labels.sort(byNumbers)[0] };
  }

  has(bins, label) {
    return this.found.some((one) => one.label === label && String(one.bins) === String(bins));
  }

  // The coordinates after `bins` that leave a box open: further than its first corner, and not the beginning of used boxes only.
  locations(bins, found) {
    const { loc } = this.tokenizer;
    const depth = bins.length;
    const last = loc[1] - loc[0] - 1;
    const [start, stop] = depth < 2 ? [0, last] : [bins[depth - 2] + 1, last + 1];
    const boxes = new Map();
    for (const one of found) {
      if (bins.every((bin, i) => one.bins[i] === bin)) boxes.set(String(one.bins), [...(boxes.get(String(one.bins)) ?? []), one.bins]);
    }
    const used = new Map();
    for (const same of boxes.values()) {
      if (same.length >= this.labels) used.set(same[0][depth], (used.get(same[0][depth]) ?? 0) + 1);
    }
    const full = [...used].filter(([value, count]) => count === completions([...bins, value], last)).map(([value]) => value);
    const cuts = [start - 1, ...full.filter((value) => value >= start && value < stop).sort((a, b) => a - b), stop];
    return cuts.slice(1).map((cut, i) => [loc[0] + cuts[i] + 1, loc[0] + cut]).filter(([a, b]) => a < b);
  }
}

// How many boxes begin with these bins, if the largest bin is `last`.
function completions(bins, last) {
  const rows = bins.length < 3 ? last - bins[0] : 1;
  const columns = bins.length < 2 ? (last * (last + 1)) / 2 : bins.length < 4 ? last - bins[1] : 1;
  return rows * columns;
}

// A place in the tree of spellings. `leaves`: every end at or below it; `here`: those at it.
const node = () => ({ children: new Map(), leaves: [], here: [] });

function add(tree, ids, leaf) {
  let at = tree;
  at.leaves.push(leaf);
  for (const id of ids) {
    if (!at.children.has(id)) at.children.set(id, node());
    at = at.children.get(id);
    at.leaves.push(leaf);
  }
  at.here.push(leaf);
}

function joined(ranges) {
  const out = [];
  for (const [start, stop] of ranges.sort((a, b) => a[0] - b[0])) {
    if (out.length && out.at(-1)[1] >= start) out.at(-1)[1] = Math.max(out.at(-1)[1], stop);
    else out.push([start, stop]);
  }
  return out;
}

// Labels, which are ids with commas between, in the order of their ids.
function byNumbers(a, b) {
  const [one, other] = [a.split(",").map(Number), b.split(",").map(Number)];
  const at = one.findIndex((value, i) => value !== other[i]);
  return at < 0 ? one.length - other.length : one[at] - (other[at] ?? -1);
}

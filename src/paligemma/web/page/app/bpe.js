// Byte-pair encoding as sentencepiece does it: characters are joined, the pair with the least rank first, and bytes stand in for what no
// piece spells. Knows nothing of special tokens; see tokenizer.js.

const BLANK = "▁";

export class BytePairs {
  // {pieces, ranks, fixed}: as `pieces.py` writes them.
  constructor({ pieces, ranks, fixed }) {
    const places = new Map(pieces.map((piece, id) => [piece, id]));
    const reached = pieces.map((piece, id) => [piece, id]).filter(([piece, id]) => ranks[id] >= 0 || [...piece].length === 1);
    this.ranks = new Map(reached.filter(([, id]) => ranks[id] >= 0).map(([piece, id]) => [piece, ranks[id]]));
    this.ids = new Map([...reached, ...fixed.map((id) => [pieces[id], id])]);
    this.bytes = Array.from({ length: 256 }, (_, byte) => places.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`));
    this.fixed = new Map(); // first character -> spellings, the longest first
    for (const piece of fixed.map((id) => pieces[id])) {
      const [first] = piece;
      this.fixed.set(first, [...(this.fixed.get(first) ?? []), piece].sort((a, b) => b.length - a.length));
    }
  }

  encode(text) {
    const parts = this.split(text.replaceAll(" ", BLANK));
    while (this.joinBest(parts));
    return parts.flatMap(({ text }) => this.ids.get(text) ?? this.spelled(text));
  }

  // Characters, and spellings that are taken whole.
  split(text) {
    const parts = [];
    for (let at = 0; at < text.length; ) {
      const character = String.fromCodePoint(text.codePointAt(at));
      const whole = this.fixed.get(character)?.find((piece) => text.startsWith(piece, at));
      parts.push({ text: whole ?? character, whole: whole !== undefined });
      at += (whole ?? character).length;
    }
    return parts;
  }

  // Joins the first of the best pairs; false where there is none.
  joinBest(parts) {
    let best = Infinity;
    let place = -1;
    for (let i = 0; i + 1 < parts.length; i++) {
      if (parts[i].whole || parts[i + 1].whole) continue;
      const rank = this.ranks.get(parts[i].text + parts[i + 1].text);
      if (rank < best) [best, place] = [rank, i];
    }
    if (place < 0) return false;
    parts.splice(place, 2, { text: parts[place].text + parts[place + 1].text, whole: false });
    return true;
  }

  spelled(text) {
    return [...new TextEncoder().encode(text)].map((byte) => this.bytes[byte]);
  }
}

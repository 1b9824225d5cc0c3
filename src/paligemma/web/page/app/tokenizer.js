// Text <-> token ids, as `tokenizer.py`: locations and codes become ids, what a user types becomes no control token.

import { BytePairs } from "./bpe.js";

export class Tokenizer {
  // `vocabulary`: see pieces.py; `tokens`: of web.json. Throws where the ids are not those that Python made of the same texts.
  constructor(vocabulary, tokens) {
    Object.assign(this, { bos: tokens.bos, eos: tokens.eos, newline: tokens.newline, loc: tokens.loc, seg: tokens.seg });
    this.pieces = vocabulary.pieces;
    this.pairs = new BytePairs(vocabulary);
    this.reserved = new Set(tokens.reserved);
    this.spellings = new Map([...spelled("loc", 4, tokens.loc), ...spelled("seg", 3, tokens.seg)]);
    this.names = new Map([...this.spellings].map(([text, id]) => [id, text]));
    const patterns = ["<loc\\d{4}>", "<seg\\d{3}>", ...tokens.reserved.map((piece) => piece.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"))];
    this.special = new RegExp(patterns.join("|"), "g");
    for (const [text, ids] of tokens.checks) {
      if (String(this.encode(text)) !== String(ids)) throw new Error(`the tokenizer of this page splits ${JSON.stringify(text)} wrongly`);
    }
  }

  encode(text) {
    const ids = [];
    let start = 0;
    for (const match of text.matchAll(this.special)) {
      if (this.spellings.has(match[0])) {
        ids.push(...this.pairs.encode(text.slice(start, match.index)), this.spellings.get(match[0]));
        start = match.index + match[0].length;
      } else if (this.reserved.has(match[0])) {
        // Cut after the first character: the spelling is never seen in one piece.
        ids.push(...this.pairs.encode(text.slice(start, match.index + 1)));
        start = match.index + 1;
      }
    }
    return [...ids, ...this.pairs.encode(text.slice(start))];
  }

  // What the model reads before it answers.
  prompt(prefix) {
    return [this.bos, ...this.encode(prefix), this.newline];
  }

  decode(ids) {
    const bytes = [];
    for (const id of ids) {
      const piece = this.names.get(id) ?? this.pieces[id] ?? "";
      const byte = /^<0x([0-9A-F]{2})>$/.exec(piece);
      if (byte) bytes.push(parseInt(byte[1], 16));
      else if (!this.reserved.has(piece)) bytes.push(...new TextEncoder().encode(piece.replaceAll("▁", " ")));
    }
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(new Uint8Array(bytes));
  }

  isLocation(id) {
    return id >= this.loc[0] && id < this.loc[1];
  }

  isCode(id) {
    return id >= this.seg[0] && id < this.seg[1];
  }
}

function spelled(name, digits, [start, stop]) {
  return Array.from({ length: stop - start }, (_, i) => [`<${name}${String(i).padStart(digits, "0")}>`, start + i]);
}

// The table of words, read row by row where it lies: in the files of the output matrix, of which it is the same table.

export class Words {
  // `facts`: "words" of web.json; `width`: of a row; `files`: name -> Blob.
  constructor(facts, width, files) {
    Object.assign(this, { facts, width, files });
    this.blocks = Math.ceil(width / facts.block);
    this.factor = Math.fround(Math.sqrt(width));
  }

  // Embeddings of the ids, one after the other, times the square root of the width.
  async rows(ids) {
    const rows = await Promise.all(ids.map((id) => this.row(id)));
    const out = new Float32Array(ids.length * this.width);
    rows.forEach((row, i) => out.set(row, i * this.width));
    return out;
  }

  async row(id) {
    const { bits, block, rows, parts } = this.facts;
    const part = parts[Math.floor(id / rows)];
    const place = id % rows;
    if (part.scales === null) {
      const row = new Float32Array(await this.bytes(part.weights, place, 4 * this.width));
      return row.map((value) => value * this.factor);
    }
    const [numbers, scales] = await Promise.all([
      this.bytes(part.weights, place, (this.blocks * block * bits) / 8).then((buffer) => new Uint8Array(buffer)),
      this.bytes(part.scales, place, 4 * this.blocks).then((buffer) => new Float32Array(buffer)),
    ]);
    const number = bits === 8 ? (i) => numbers[i] - 128 : (i) => ((numbers[i >> 1] >> (4 * (i & 1))) & 15) - 8;
    return Float32Array.from({ length: this.width }, (_, i) => Math.fround(number(i) * scales[Math.floor(i / block)]) * this.factor);
  }

  bytes(part, row, size) {
    const start = part.at + row * size;
    return this.files.get(part.file).slice(start, start + size).arrayBuffer();
  }
}

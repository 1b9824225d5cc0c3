// The model at work in ONNX Runtime Web: picture -> image tokens; image tokens and prompt -> logits; one more token -> logits.

import { bytesOf } from "./files.js";
import { Words } from "./words.js";

export class Network {
  // `ort`: the runtime; `facts`: web.json; `files`: name -> Blob; `provider`: "webgpu" or "wasm".
  static async open(ort, facts, files, provider) {
    const network = new Network();
    Object.assign(network, { ort, facts, provider, words: new Words(facts.words, facts.text.width, files) });
    const layers = Array.from({ length: facts.text.depth }, (_, i) => i);
    network.caches = layers.flatMap((i) => [[`past_key_${i}`, `key_${i}`], [`past_value_${i}`, `value_${i}`]]);
    // Keys and values stay where they are computed.
    const places = Object.fromEntries(network.caches.map(([, name]) => [name, "gpu-buffer"]));
    const place = provider === "webgpu" ? { preferredOutputLocation: places } : {};
    network.vision = await session(ort, facts.graphs.vision, files, provider, {});
    network.decoder = await session(ort, facts.graphs.decoder, files, provider, place);
    network.masks = facts.graphs.masks ? await session(ort, facts.graphs.masks, files, "wasm", {}) : null;
    return network;
  }

  // pixels (3, S, S) -> image tokens (P, D), one after the other.
  async encode(pixels) {
    const { size } = this.facts.image;
    const { soft } = await this.vision.run({ pixels: new this.ort.Tensor("float32", pixels, [1, 3, size, size]) });
    return soft.getData();
  }

  // Reads picture and prompt; the logits of what comes next.
  async begin(soft, ids) {
    this.forget();
    const { kv_heads, head_dim } = this.facts.text;
    const empty = () => new this.ort.Tensor("float32", new Float32Array(0), [kv_heads, 0, head_dim]);
    this.past = Object.fromEntries(this.caches.map(([name]) => [name, empty()]));
    this.length = 0;
    const words = await this.words.rows(ids);
    const x = new Float32Array(soft.length + words.length);
    x.set(soft);
    x.set(words, soft.length);
    return this.step(x);
  }

  async extend(id) {
    return this.step(await this.words.row(id));
  }

  // Lets go of the keys and values of the last answer.
  forget() {
    for (const tensor of Object.values(this.past ?? {})) tensor.dispose();
    this.past = null;
  }

  async step(x) {
    const { width, head_dim } = this.facts.text;
    const count = x.length / width;
    const [cos, sin] = this.turns(count);
    const rows = (data, size) => new this.ort.Tensor("float32", data, [count, size]);
    const given = { x: rows(x, width), cos: rows(cos, head_dim / 2), sin: rows(sin, head_dim / 2) };
    const out = await this.decoder.run({ ...given, ...this.past });
    this.forget();
    this.past = Object.fromEntries(this.caches.map(([before, after]) => [before, out[after]]));
    this.length += count;
    return out.logits.getData();
  }

  // Cosines and sines for the next `count` places, rounded as PyTorch does.
  turns(count) {
    const { head_dim, rope_base } = this.facts.text;
    const half = head_dim / 2;
    const [cos, sin] = [new Float32Array(count * half), new Float32Array(count * half)];
    for (let i = 0; i < half; i++) {
      const period = Math.fround(rope_base ** Math.fround((2 * i) / head_dim));
      for (let t = 0; t < count; t++) {
        const angle = Math.fround((this.length + t) / period);
        cos[t * half + i] = Math.cos(angle);
        sin[t * half + i] = Math.sin(angle);
      }
    }
    return [cos, sin];
  }

  // Codes of several objects -> soft masks (64, 64) each, whose boundary is at 0.
  async shapes(codes) {
    const { codes: each, mask_side } = this.facts.objects;
    const numbers = BigInt64Array.from(codes.flat(), BigInt);
    const { masks } = await this.masks.run({ codes: new this.ort.Tensor("int64", numbers, [codes.length, each]) });
    const data = await masks.getData();
    const area = mask_side ** 2;
    return codes.map((_, i) => data.slice(i * area, (i + 1) * area));
  }
}

async function session(ort, { graph, data }, files, provider, options) {
  const externalData = await Promise.all(data.map(async ({ path }) => ({ path, data: await bytesOf(files.get(path)) })));
  return ort.InferenceSession.create(await bytesOf(files.get(graph.path)), { executionProviders: [provider], externalData, ...options });
}

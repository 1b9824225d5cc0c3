// A model in a worker, from the page's side: open it, ask it.

import { areStored, totalBytes } from "./files.js";

// What web.json says of the pack at an address. Throws an error in words.
export async function readFacts(base) {
  const response = await fetch(new URL("web.json", base), { cache: "no-cache" }).catch(() => null);
  if (!response?.ok) throw new Error("There is no web.json beside this page. Serve the folder that was packed: python -m http.server");
  return response.json();
}

export class Model {
  // `onStage`: called with what is being done: {what: "download", done, total}, "start", "image", "prompt", "token" with {count, text}.
  constructor(base, facts, onStage = () => {}) {
    Object.assign(this, { base, facts, onStage, waiting: new Map(), count: 0 });
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => this.heard(data);
    this.worker.onerror = (event) => this.fail(event.message || "The page's worker cannot be started.");
  }

  bytes() {
    return totalBytes(this.facts);
  }

  isStored() {
    return areStored(this.facts, new URL("model/", this.base).href);
  }

  // -> {engine, threads}. `engine`: "webgpu" or "wasm", or nothing.
  open(engine = null) {
    return this.call({ kind: "open", base: this.base, engine, facts: this.facts });
  }

  // `picture`: a Blob, or null for the one asked about last. -> {text, ids, score | objects, ...}: see worker.js and tasks.js.
  ask(picture, task, fields = {}) {
    return this.call({ kind: "ask", picture, task, fields });
  }

  // Ends the answer that is being written; what there is of it is the answer.
  stop() {
    this.worker.postMessage({ kind: "stop" });
  }

  call(message) {
    const id = ++this.count;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ ...message, id });
    });
  }

  heard({ kind, id, value, message, ...rest }) {
    if (kind === "stage") return this.onStage(rest);
    const { resolve, reject } = this.waiting.get(id);
    this.waiting.delete(id);
    return kind === "done" ? resolve(value) : reject(new Error(message));
  }

  fail(message) {
    for (const { reject } of this.waiting.values()) reject(new Error(message));
    this.waiting.clear();
  }
}

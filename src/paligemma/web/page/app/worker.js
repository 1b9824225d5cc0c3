// Everything that computes, off the page's thread: fetches the model, opens it, answers questions one after the other.

import { fetchAll } from "./files.js";
import { generate } from "./generate.js";
import { Network } from "./network.js";
import { readPicture } from "./picture.js";
import { toPixels } from "./resize.js";
import { question } from "./tasks.js";
import { Tokenizer } from "./tokenizer.js";

const MOST_THREADS = 8;

let model = null; // {facts, network, tokenizer, engine}
let seen = null; // {width, height, soft} of the last picture
let stopping = false;
let queue = Promise.resolve();

self.onmessage = ({ data }) => {
  if (data.kind === "stop") stopping = true;
  else queue = queue.then(() => answered(data));
};

async function answered({ kind, id, ...asked }) {
  try {
    const value = kind === "open" ? await open(asked) : await ask(asked);
    self.postMessage({ kind: "done", id, value });
  } catch (error) {
    self.postMessage({ kind: "failed", id, message: inWords(error) });
  }
}

const stage = (what, more = {}) => self.postMessage({ kind: "stage", what, ...more });

// `base`: the pack's address. `engine`: "webgpu", "wasm" or nothing for the best that works. What answers is told, and why not the GPU.
async function open({ base, engine, facts }) {
  const best = engine ?? ((await hasGpu()) ? "webgpu" : "wasm");
  await runtime(base, facts, best); // first: without it a large model would be fetched for nothing
  const folder = new URL("model/", base).href;
  const files = await fetchAll(facts, folder, (done, total) => stage("download", { done, total }));
  stage("start");
  const tokenizer = new Tokenizer(JSON.parse(await files.get(facts.vocabulary.path).text()), facts.tokens);
  const start = async (provider) => {
    const ort = await runtime(base, facts, provider);
    const network = await Network.open(ort, facts, files, provider).catch((error) => {
      throw provider === "wasm" && /no available backend/.test(error.message) ? withoutRuntime(base, facts) : error; // some of its files are missing
    });
    model = { facts, tokenizer, network };
    return { engine: provider, threads: ort.env.wasm.numThreads };
  };
  if (engine || best === "wasm") return start(best);
  return start("webgpu").catch(async (error) => ({ ...(await start("wasm")), why: inWords(error) }));
}

async function runtime(base, facts, provider) {
  const folder = new URL(facts.runtime, base).href;
  const ort = await import(`${folder}ort.${provider}.bundle.min.mjs`).catch(() => {
    throw withoutRuntime(base, facts);
  });
  ort.env.wasm.wasmPaths = folder;
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency ?? 1, MOST_THREADS) : 1;
  ort.env.logLevel = "error";
  return ort;
}

function withoutRuntime(base, facts) {
  const folder = new URL(facts.runtime, base).href;
  return new Error(`ONNX Runtime Web, with which this page computes, cannot be fetched from ${folder}. ${facts.without_runtime}`);
}

async function hasGpu() {
  return Boolean(await navigator.gpu?.requestAdapter().catch(() => null));
}

// `picture`: a Blob, or nothing for the last one. `task`, `fields`: see tasks.js.
async function ask({ picture, task, fields }) {
  const { facts, network, tokenizer } = model;
  const started = performance.now();
  stopping = false;
  const asked = question(task, fields, facts, tokenizer);
  if (picture) {
    seen = null;
    stage("image");
    const { rgb, width, height } = await readPicture(picture);
    const pixels = toPixels(rgb, width, height, facts.image.size, facts.image.resize);
    seen = { width, height, soft: await network.encode(pixels) };
  }
  stage("prompt");
  const answer = await generate(network, seen.soft, tokenizer.prompt(asked.prompt), {
    maxTokens: asked.maxTokens,
    eos: tokenizer.eos,
    loc: tokenizer.loc,
    window: facts.objects.loc_window,
    grammar: asked.grammar,
    stopped: () => stopping,
    onToken: async (ids) => {
      stage("token", { count: ids.length, text: tokenizer.decode(ids) });
      await pause();
    },
  });
  const result = await asked.read(answer, seen, network);
  const { width, height } = seen;
  const seconds = (performance.now() - started) / 1000;
  return { ...result, task, prompt: asked.prompt, ids: answer.ids, stop: answer.stop, width, height, seconds };
}

// Lets messages in, such as a wish to stop.
function pause() {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = resolve;
    port2.postMessage(null);
  });
}

// What went wrong, for people.
function inWords(error) {
  const text = String(error?.message ?? error);
  if (/out of memory|bad_alloc|allocation failed|Array buffer allocation/i.test(text)) {
    return "The model does not fit into this browser's memory. Close other tabs, or use a smaller model (int4).";
  }
  return text;
}

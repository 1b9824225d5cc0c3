// The page: what is on it, and what happens when. Everything that computes is in the worker.

import { paint, scaleIn, shape } from "../shared/canvas.js";
import { fill, fillLanguages } from "../shared/choices.js";
import { css, drawObjects, inksOf } from "../shared/draw.js";
import { element, h } from "../shared/elements.js";
import { listen } from "../shared/source.js";
import { Model, readFacts } from "./client.js";
import { isolate } from "./isolated.js";

const SMALL = 64 << 20; // bytes of a model that is fetched without asking
const OPENING = "paligemma-opening"; // stays behind where opening a model ended the page
const HINTS = {
  caption: "What the picture shows, in a sentence.",
  answer: "A question about the picture.",
  detect: "Boxes around everything that has one of these names.",
  segment: "The outline of what you name: a word or a phrase.",
  ocr: "All text in the picture.",
  run: "Any prompt, exactly as the model was trained on it.",
};

const base = new URL(".", document.baseURI).href;
const form = element("form");
const field = (name) => form.elements.namedItem(name); // not elements.length, which is their number
const task = () => field("task").value;

let facts, model;
let picture = null; // {blob, bitmap, sent}, what is shown
let example = null; // of facts.examples, where that is what was chosen last
let choosing = null; // a promise: that choice is shown
let ready = false;

start().catch(fail);

async function start() {
  if (await isolate()) return;
  for (const radio of field("task")) radio.addEventListener("change", () => showTask(true));
  listen((blob) => choose(async () => blob).catch(fail), fail, ["image/"]);
  facts = await readFacts(base);
  const millions = facts.parameters / 1e6;
  const size = millions >= 1000 ? `${(millions / 1000).toFixed(1)} billion` : `${millions.toFixed(1)} million`;
  element("about").textContent = `${facts.name}, ${size} parameters, in your browser. Pictures stay on this machine.`;
  element("notes").textContent = facts.notes.join(" ");
  element("notes").hidden = !facts.notes.length;
  fillChoices();
  showExamples();
  showTask(false);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answer().catch(fail);
  });
  element("stop").addEventListener("click", () => model.stop());
  model = new Model(base, facts, showStage);
  if (facts.examples.length) await chooseExample(0);
  const [stored, crashed] = [await model.isStored(), localStorage.getItem(OPENING) === base];
  if (model.bytes() <= SMALL || (stored && !crashed)) return open();
  element("model").hidden = false;
  element("model-status").textContent = crashed
    ? "The model was not opened to the end last time: it may need more memory than there is."
    : "The model is fetched once and kept by your browser.";
  element("load").textContent = `${stored ? "Open" : "Fetch"} the model (${inBytes(model.bytes())})`;
  element("load").hidden = false;
  element("load").addEventListener("click", () => open().catch(fail));
}

async function open() {
  element("load").hidden = true;
  element("model").hidden = false;
  element("download").hidden = false;
  element("model-status").textContent = "Opening the model ...";
  const engine = new URL(document.location).searchParams.get("engine");
  localStorage.setItem(OPENING, base);
  try {
    showEngine(await model.open(engine));
  } catch (error) {
    element("download").hidden = true;
    Object.assign(element("model-status"), { className: "bad", textContent: error.message }); // it stays: nothing can be asked
    return;
  } finally {
    localStorage.removeItem(OPENING);
  }
  element("model").hidden = true;
  ready = true;
  showReady();
}

function showEngine({ engine, threads, why }) {
  const reason = why ? `; not on the GPU: ${why}` : "";
  const processor = `on the processor (WebAssembly, ${threads} thread${threads === 1 ? "" : "s"}${reason})`;
  const where = engine === "webgpu" ? "on the GPU (WebGPU)" : processor;
  const weights = `${facts.quantize}, ${inBytes(model.bytes())}`;
  document.querySelector("footer").textContent = `Computed ${where} by ONNX Runtime Web; weights: ${weights}.`;
}

// Pictures

// Of several choices the last one counts, however long each takes to arrive.
function choose(fetchBlob, from = null) {
  example = from;
  suggest();
  const choice = openPicture(fetchBlob).then((opened) => {
    if (choice === choosing) showPicture({ ...opened, sent: false });
    else opened.bitmap.close();
  });
  choosing = choice;
  return choice;
}

async function openPicture(fetchBlob) {
  const blob = await fetchBlob();
  try {
    return { blob, bitmap: await createImageBitmap(blob) };
  } catch {
    throw new Error("This is no picture that the browser can open. PNG, JPEG and WebP work everywhere.");
  }
}

function showPicture(opened) {
  picture?.bitmap.close();
  picture = opened;
  element("view").setAttribute("aria-label", "The picture");
  element("stage").style.setProperty("--ratio", picture.bitmap.width / picture.bitmap.height);
  element("stage").hidden = false;
  element("hint").hidden = true;
  element("drop").classList.add("full");
  clear();
  for (const one of element("examples").children) one.setAttribute("aria-pressed", one.dataset.image === example?.image);
  showReady();
}

function chooseExample(i) {
  const chosen = facts.examples[i];
  return choose(async () => (await fetch(new URL(chosen.image, base))).blob(), chosen);
}

// What is asked first of an example.
function suggest() {
  if (!example) return;
  const texts = { question: example.ask, names: example[task()]?.join?.(" ; ") };
  for (const [name, text] of Object.entries(texts)) if (text) field(name).value = text;
}

function showExamples() {
  const buttons = facts.examples.map(({ image }, i) => {
    const shown = h("img", { src: new URL(image, base).href, alt: `Example ${i + 1}` });
    const onclick = () => chooseExample(i).catch(fail);
    return h("button", { type: "button", title: `Example ${i + 1}`, "data-image": image, "aria-pressed": "false", onclick }, shown);
  });
  element("examples").replaceChildren(...buttons);
}

function show(objects) {
  const [view, scale] = [element("view"), scaleIn(picture.bitmap, element("drop"))];
  shape(view, picture.bitmap, scale);
  paint(view, picture.bitmap);
  drawObjects(view.getContext("2d"), objects, inksOf(objects), { scale, unit: 1.75 * devicePixelRatio });
}

// The question

// Tasks that this model was taught, and lengths of captions.
function fillChoices() {
  const tabs = [...field("task")].filter(({ value }) => facts.tasks[value] && (value !== "segment" || facts.graphs.masks));
  for (const tab of field("task")) tab.parentElement.hidden = !tabs.includes(tab);
  tabs[0].checked = true;
  fill(field("length"), Object.keys(facts.tasks.caption?.prompts ?? {}).map((length) => [length, length]), "normal");
}

function showTask(changed) {
  const codes = facts?.tasks[task()].languages;
  if (codes) fillLanguages(field("lang"), codes);
  element("task-hint").textContent = HINTS[task()];
  for (const label of form.querySelectorAll("[data-tasks]")) label.hidden = !label.dataset.tasks.split(" ").includes(task());
  if (changed) suggest();
}

async function answer() {
  clear();
  busy(true);
  const fields = Object.fromEntries(["question", "names", "prompt", "lang", "length"].map((name) => [name, field(name).value]));
  try {
    await choosing?.catch(() => {}); // its own caller tells of it
    const asked = picture;
    const result = await model.ask(asked.sent ? null : asked.blob, task(), fields);
    asked.sent = true;
    if (asked === picture) showAnswer(result);
  } finally {
    busy(false);
  }
}

// Answers

function showAnswer(result) {
  const shown = [];
  if (result.objects) {
    show(result.objects);
    const inks = inksOf(result.objects);
    const list = h("ul", {}, result.objects.map((one) => row(one, css(inks.get(one.label)))));
    shown.push(result.objects.length ? list : paragraph("text", "Nothing of that name was found."), paragraph("raw", result.text));
    element("view").setAttribute("aria-label", `The picture with ${result.objects.length} objects marked`);
  } else {
    shown.push(paragraph("text", result.text || "(no answer)"));
  }
  element("answer").replaceChildren(...shown);
  const sure = result.score === undefined ? "" : `, score ${Math.round(100 * result.score)} %`;
  const cut = { length: ", cut off: too long", stopped: ", stopped" }[result.stop] ?? "";
  element("status").textContent = `${result.ids.length} tokens in ${result.seconds.toFixed(1)} s${sure}${cut}`;
}

function row({ label, box, score }, colour) {
  const [x0, y0, x1, y1] = box.map(Math.round);
  const swatch = h("span", { class: "swatch" });
  swatch.style.background = colour;
  const place = h("span", { class: "number" }, `x ${x0}-${x1}, y ${y0}-${y1}`);
  const sure = h("span", { class: "number score" }, `${Math.round(100 * score)} %`);
  return h("li", {}, swatch, h("b", {}, label), place, sure);
}

const paragraph = (kind, text) => h("p", { class: kind }, text);

// What is going on

function showStage({ what, done, total, count, text }) {
  if (what === "download") {
    element("download").value = done / total;
    element("model-status").textContent = `Fetching the model: ${inBytes(done)} of ${inBytes(total)}`;
  } else if (what === "start") {
    element("download").removeAttribute("value");
    element("model-status").textContent = "Preparing the model ...";
  } else if (what === "token") {
    element("status").textContent = `Writing: ${count} tokens`;
    element("answer").replaceChildren(paragraph(task() === "detect" || task() === "segment" ? "raw" : "text", text));
  } else {
    element("status").textContent = { image: "Looking at the picture ...", prompt: "Reading the question ..." }[what];
  }
}

function busy(on) {
  element("busy").hidden = element("stop").hidden = !on;
  element("ask").disabled = on;
}

function showReady() {
  element("ask").disabled = !(ready && picture);
}

function clear() {
  element("error").hidden = true;
  element("answer").replaceChildren();
  element("status").textContent = "";
  if (picture) show([]);
}

function fail(error) {
  element("error").textContent = error.message;
  element("error").hidden = false;
  element("status").textContent = "";
  element("download").hidden = true;
}

function inBytes(count) {
  return count >= 1e9 ? `${(count / 1e9).toFixed(1)} GB` : count >= 1e6 ? `${Math.round(count / 1e6)} MB` : `${Math.round(count / 1e3)} kB`;
}

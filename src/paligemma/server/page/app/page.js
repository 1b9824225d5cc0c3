// The page: what is on it, and what happens when.

import { examples, fetchBlob, key, models, useKey } from "./api.js";
import { answerTo } from "./asking.js";
import { Card } from "./card.js";
import { offerEarlier } from "./earlier.js";
import { element, h } from "./elements.js";
import { Frame } from "./frame.js";
import { keep } from "./history.js";
import { dataUrl, openFrames, openPicture, thumbnail } from "./picture.js";
import { listen } from "./source.js";
import { automatic, canSpeak, hush, setAutomatic, speak } from "./speech.js";
import { Stage } from "./stage.js";
import { languageName, Missing, TASKS } from "./tasks.js";
import { openVideo } from "./video.js";

const form = element("form");
const field = (name) => form.elements.namedItem(name);
const task = () => form.querySelector('[name="task"]:checked').value;

const stage = new Stage({ onPoint: (object) => point(current, object), onChoose: (object) => choose(current, object) });
const frame = new Frame();
const page = { show, point, choose, remove, changed };

let known = []; // models
let offered = []; // examples
let example = null; // the one that is shown
let picture = null;
let opening = null; // a promise: what was chosen last is shown
let id = 0; // of the picture in the history
let cards = []; // the latest first
let current = null; // the card whose objects are on the picture
let pressed = null; // the object that was chosen there
let running = null; // an AbortController, while a question is being answered
let locked = null; // what to do again once there is a key

start();

function start() {
  makeTasks();
  showTask(false);
  listen((blob) => take(() => openFile(blob)), fail);
  offerEarlier(reopen, fail);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    answer();
  });
  element("stop").addEventListener("click", () => running?.abort());
  element("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    unlock();
  });
  element("aloud-field").hidden = !canSpeak;
  element("aloud").checked = automatic();
  element("aloud").addEventListener("change", () => {
    setAutomatic(element("aloud").checked);
    if (!automatic()) hush();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && current) choose(current, null);
  });
  connect();
}

// The server

async function connect() {
  try {
    known = await models();
    showModels();
    offered = await examples().catch(() => []); // they are a courtesy
    showExamples();
    if (offered.length && !opening) takeExample(0);
  } catch (error) {
    fail(error, connect);
  }
}

function showModels() {
  const [first] = known;
  const names = known.map((model) => model.id).join(", ");
  element("about").textContent = `${names || "PaliGemma"}, on this server. Pictures are sent to it and to nobody else.`;
  element("notes").textContent = first?.notes?.join(" ") ?? "";
  element("notes").hidden = !first?.notes?.length;
  field("model").replaceChildren(...known.map((model) => new Option(model.id)));
  element("model-field").hidden = known.length < 2;
  field("model").onchange = showAbilities;
  showAbilities();
}

// Only what the model was trained on is offered, where the server says what that is.
function showAbilities() {
  const model = known.find((one) => one.id === field("model").value);
  const able = (name) => !model?.tasks?.length || model.tasks.includes(name);
  for (const radio of form.querySelectorAll('[name="task"]')) radio.parentElement.hidden = !able(radio.value);
  element("more").hidden = !element("more-tasks").querySelector("label:not([hidden])");
  if (!able(task())) form.querySelector('label:not([hidden]) [name="task"]').checked = true;
  const was = field("lang").value || "en";
  const codes = model?.languages?.length ? model.languages : ["en"];
  const options = codes.map((code) => [languageName(code), code]).sort(([a], [b]) => a.localeCompare(b));
  field("lang").replaceChildren(...options.map(([name, code]) => new Option(name, code, code === "en", code === was)));
  showTask(false);
}

function unlock() {
  useKey(element("key").value.trim());
  element("key").value = "";
  element("locked").hidden = true;
  clearError();
  const again = locked;
  locked = null;
  again?.();
}

// Pictures

const openFile = (blob) => (blob.type.startsWith("video/") ? openVideo(blob) : openPicture(blob));

// Of several choices the last one counts, however long each takes to arrive.
async function take(open, from = null, entry = null) {
  running?.abort();
  const choice = open();
  opening = choice;
  try {
    const opened = await choice;
    if (opening === choice) showPicture(opened, from, entry);
    else opened.bitmap.close();
  } catch (error) {
    if (opening === choice) fail(error);
  }
}

function showPicture(opened, from, entry) {
  picture?.bitmap.close();
  picture = opened;
  example = from;
  id = entry?.id ?? Date.now();
  clearError();
  hush();
  stage.show(picture);
  frame.fit(picture.width, picture.height);
  element("picture-note").textContent = picture.note;
  showClip();
  for (const one of element("examples").children) one.setAttribute("aria-pressed", one.dataset.image === example?.image);
  cards = (entry?.cards ?? []).map((kept) => new Card(kept, picture, page));
  showCards();
  current = pressed = null;
  if (cards.length) show(cards[0]);
  suggest();
}

function showClip() {
  const strip = element("clip");
  for (const image of strip.children) URL.revokeObjectURL(image.src);
  strip.hidden = picture.blobs.length === 1;
  const images = strip.hidden ? [] : picture.blobs.map((blob, i) => h("img", { src: URL.createObjectURL(blob), alt: `Picture ${i + 1}` }));
  strip.replaceChildren(...images);
}

function takeExample(i) {
  const { image } = offered[i];
  const name = image.split("/").at(-1);
  return take(async () => openPicture(new File([await fetchBlob(image)], name, { type: `image/${name.split(".").at(-1)}` })), offered[i]);
}

function showExamples() {
  const buttons = offered.map(({ image }, i) =>
    h(
      "button",
      { type: "button", "data-image": image, "aria-pressed": "false", onclick: () => takeExample(i) },
      h("img", { src: image, alt: `Example ${i + 1}` }),
    ),
  );
  element("examples").replaceChildren(...buttons);
}

// What is asked first of an example.
function suggest() {
  if (!example) return;
  const texts = { question: example.ask, names: example[task()]?.join?.(" ; ") };
  for (const [name, text] of Object.entries(texts)) if (text) field(name).value = text;
}

const reopen = (entry) => take(() => openFrames(entry.name, entry.blobs, entry.note), null, entry);

// The question

function makeTasks() {
  for (const [name, { words, more }] of Object.entries(TASKS)) {
    const radio = h("input", { type: "radio", name: "task", value: name, onchange: () => showTask(true) });
    element(more ? "more-tasks" : "tasks").append(h("label", {}, radio, h("span", {}, words)));
  }
  form.querySelector('[name="task"]').checked = true;
}

function showTask(changed) {
  const { hint, fields } = TASKS[task()];
  element("task-hint").textContent = hint;
  for (const label of form.querySelectorAll("[data-field]")) label.hidden = !fields.includes(label.dataset.field);
  frame.show(task() === "describe-box");
  if (changed) suggest();
}

const typed = () => Object.fromEntries(TASKS[task()].fields.map((name) => [name, field(name).value]));

async function answer() {
  if (running) return;
  clearError();
  running = new AbortController();
  busy(true);
  let card = null;
  try {
    await opening?.catch(() => {}); // whoever chose it tells of it
    if (!picture) throw new Error("Choose a picture first: drop one on the page, paste one, or take one of the buttons.");
    const body = TASKS[task()].body(typed());
    if (known.length > 1) body.model = field("model").value;
    card = new Card({ task: task(), fields: typed(), body, response: null, least: 0 }, picture, page);
    cards.unshift(card);
    showCards();
    await ask(card, running.signal);
  } catch (error) {
    if (card) drop(card);
    if (error.name !== "AbortError") fail(error, answer);
  } finally {
    running = null;
    busy(false);
  }
}

async function ask(card, signal) {
  const { task: name, body } = card.kept;
  const asked = card.picture;
  const images = await Promise.all(asked.blobs.map(dataUrl));
  const sent = { ...(images.length === 1 ? { image: images[0] } : { images }), ...body };
  tell("Looking at the picture …");
  card.kept.response = await answerTo(name, sent, signal, {
    text: (piece) => {
      card.write(piece);
      tell("Writing …");
    },
    again: (failure) => {
      card.again();
      announce(`${failure.message} The question is asked again in ${failure.wait} seconds.`);
      element("busy").hidden = true;
      element("error").textContent = "";
    },
    wait: (left) => {
      element("busy").hidden = left > 0;
      tell(left ? `The server has no time yet. Asking again in ${left} s.` : "Asking again …");
    },
  });
  if (asked !== picture) return;
  card.finish();
  show(card);
  announce(card.inWords());
  if (automatic()) speak(card.inWords(), card.lang);
  changed();
}

// Answers

function showCards() {
  element("asked").replaceChildren(...cards.map((card) => card.root));
}

// This card's objects on the picture, and no other's.
function show(card) {
  current = card;
  pressed = null;
  for (const one of cards) {
    one.root.classList.toggle("current", one === card && cards.length > 1);
    one.mark(null, null);
    const again = one.root.querySelector(".show");
    if (again) again.hidden = one === card && document.activeElement !== again;
  }
  stage.showObjects(card.objects, card.all ?? []);
}

// The mouse or the keyboard is on an object, in the list or on the picture: it stands out in both.
function point(card, object) {
  if (!card || (card !== current && !object)) return;
  if (card !== current) show(card);
  const chosen = object ?? pressed;
  card.mark(chosen, pressed);
  stage.choose(chosen, pressed);
}

// An object that was clicked stands out until another is, or it is clicked again.
function choose(card, object) {
  if (card !== current) show(card);
  pressed = pressed === object ? null : object;
  card.mark(pressed, pressed);
  stage.choose(pressed, pressed);
}

function remove(card) {
  drop(card);
  changed();
  (cards[0]?.root.querySelector("button") ?? element("ask")).focus();
}

function drop(card) {
  cards = cards.filter((one) => one !== card);
  card.root.remove();
  if (card !== current) return;
  current = null;
  if (cards.length) show(cards[0]);
  else stage.showObjects([], []);
}

// Into the history.
async function changed() {
  const answered = cards.map(({ kept }) => kept).filter(({ response }) => response);
  const { name, blobs, note } = picture;
  const entry = { id, name, blobs, note, cards: answered };
  await keep({ ...entry, thumbnail: await thumbnail(picture) }).catch(() => {}); // a browser may refuse to keep anything
}

// What is going on

function busy(on) {
  element("busy").hidden = element("stop").hidden = !on;
  element("ask").setAttribute("aria-disabled", on);
  tell("");
}

function tell(text) {
  element("status").textContent = text;
}

// For screen readers, which are not told of every piece of an answer that is being written.
function announce(text) {
  element("said").textContent = text;
}

function clearError() {
  element("error").hidden = true;
  element("error").textContent = "";
  for (const one of form.querySelectorAll("[aria-invalid]")) {
    one.removeAttribute("aria-invalid");
    one.removeAttribute("aria-describedby");
  }
}

// `again`: what failed, to be done again once there is a key.
function fail(error, again = null) {
  if (error.status === 401) return lock(again, error);
  element("error").textContent = error.message;
  element("error").hidden = false;
  if (!(error instanceof Missing)) return;
  field(error.field).setAttribute("aria-invalid", "true");
  field(error.field).setAttribute("aria-describedby", "error");
  field(error.field).focus();
}

function lock(again, error) {
  locked = again;
  element("key-hint").textContent = key() ? error.message : "Whoever runs the server knows it. It is kept until you close this tab.";
  element("locked").hidden = false;
  element("key").focus();
}

// The page: what is on it, and what happens when.

import { element, h } from "../shared/elements.js";
import { listen } from "../shared/source.js";
import { examples, fetchBlob, key, models, useKey } from "./api.js";
import { answerTo } from "./asking.js";
import { Cards } from "./cards.js";
import { offerEarlier } from "./earlier.js";
import { blame, blameNone, field, makeTasks, mostPictures, offer, suggest, task, typed } from "./form.js";
import { Frame } from "./frame.js";
import { keep } from "./history.js";
import { dataUrl, openFrames, openPicture, thumbnail } from "./picture.js";
import { automatic, canSpeak, hush, setAutomatic, speak } from "./speech.js";
import { Missing, TASKS } from "./tasks.js";
import { openVideo } from "./video.js";

const cards = new Cards(changed);
const frame = new Frame();

let known = []; // models
let example = null; // the one that is shown
let picture = null;
let opening = null; // a promise: what was chosen last
let id = 0; // of the picture in the history
let running = null; // an AbortController, while a question is being answered
let locked = null; // what to do again once there is a key
let showKept = null; // in the list of earlier pictures, where that is open

start();

function start() {
  makeTasks(showTask);
  offer(known);
  listen((blob) => take(() => openFile(blob)), fail, ["image/", "video/"]);
  showKept = offerEarlier((entry) => take(() => openFrames(entry.name, entry.blobs, entry.note), null, entry), fail);
  listenTo("form", "submit", answer);
  listenTo("key-form", "submit", unlock);
  element("stop").addEventListener("click", () => running?.abort());
  element("aloud-field").hidden = !canSpeak;
  element("aloud").checked = automatic();
  element("aloud").addEventListener("change", () => {
    setAutomatic(element("aloud").checked);
    if (!automatic()) hush();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    hush();
    if (cards.current) cards.choose(cards.current, null);
  });
  connect();
}

function listenTo(name, kind, act) {
  element(name).addEventListener(kind, (event) => {
    event.preventDefault();
    act();
  });
}

// The server

async function connect() {
  try {
    known = await models();
    clearError();
    const names = known.map((model) => model.id).join(", ");
    const notes = known[0]?.notes ?? [];
    element("about").textContent = `${names || "PaliGemma"}, on this server. Pictures are sent to it and to nobody else.`;
    element("notes").textContent = notes.join(" ");
    element("notes").hidden = !notes.length;
    cards.explain = known.some((model) => model.explains) ? explain : null;
    element("to-search").hidden = !known.some((model) => model.search);
    offer(known);
    showExamples(await examples().catch(() => [])); // they are a courtesy
  } catch (error) {
    fail(error, connect);
    if (error.wait != null) setTimeout(connect, 1000 * error.wait);
  }
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

const openFile = (blob) => (blob.type.startsWith("video/") ? openVideo(blob, mostPictures()) : openPicture(blob));

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
  cards.begin(picture, entry?.cards ?? []);
  frame.fit(picture.width, picture.height);
  element("picture-note").textContent = picture.note;
  showClip();
  for (const one of element("examples").children) one.setAttribute("aria-pressed", one.dataset.image === example?.image);
  if (example) suggest(example);
}

function showClip() {
  const strip = element("clip");
  for (const image of strip.children) URL.revokeObjectURL(image.src);
  strip.hidden = picture.blobs.length === 1;
  const images = strip.hidden ? [] : picture.blobs.map((blob, i) => h("img", { src: URL.createObjectURL(blob), alt: `Picture ${i + 1}` }));
  strip.replaceChildren(...images);
}

function showExamples(offered) {
  const buttons = offered.map((one, i) => {
    const image = h("img", { src: one.image, alt: `Example ${i + 1}` });
    return h("button", { type: "button", "data-image": one.image, "aria-pressed": "false", onclick: () => takeExample(one) }, image);
  });
  element("examples").replaceChildren(...buttons);
  if (offered.length && !opening) takeExample(offered[0]);
}

function takeExample(one) {
  const open = async () => {
    const blob = await fetchBlob(one.image);
    return openPicture(new File([blob], one.image.split("/").at(-1), { type: blob.type }));
  };
  return take(open, one);
}

// The question

function showTask() {
  frame.show(task() === "describe-box");
  if (example) suggest(example);
}

async function answer() {
  if (running) return;
  clearError();
  announce("");
  running = new AbortController();
  busy(true);
  let card = null;
  try {
    await opening?.catch(() => {}); // whoever chose it tells of it
    if (!picture) throw new Error("Choose a picture first: drop one on the page, paste one, or press “Choose a picture”.");
    const body = TASKS[task()].body(typed());
    if (known.length > 1) body.model = field("model").value;
    card = cards.add({ task: task(), fields: typed(), body, response: null, least: 0 });
    await ask(card, running.signal);
  } catch (error) {
    if (card) cards.drop(card);
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
  tell("Looking at the picture …");
  card.kept.response = await answerTo(name, { ...(images.length === 1 ? { image: images[0] } : { images }), ...body }, signal, {
    text: (piece) => {
      card.write(piece);
      tell("Writing …");
    },
    again: (failure) => {
      card.wait();
      announce(`${failure.message} The question is asked again in ${failure.wait} seconds.`);
    },
    wait: ({ message }, left) => {
      element("busy").hidden = left > 0;
      tell(left ? `${message} Asking again in ${left} s.` : "Asking again …");
    },
  });
  if (asked !== picture) return;
  card.finish();
  cards.show(card);
  announce(card.inWords());
  if (automatic()) speak(card.inWords(), card.lang);
  changed();
}

// The same question once more, this time with where the model looked.
async function explain(card, signal) {
  const { task: name, body } = card.kept;
  const image = await dataUrl(card.picture.blobs[0]);
  const quiet = { text() {}, again() {}, wait() {} };
  const { explanation } = await answerTo(name, { image, ...body, explain: true }, signal, quiet);
  if (!explanation) throw new Error("The answer is too long for that.");
  card.kept.explanation = explanation;
  if (card.picture === picture) changed();
  return explanation;
}

// Into the history. A browser may refuse to keep anything.
async function changed() {
  const { name, blobs, note } = picture;
  const entry = { id, name, blobs, note, cards: cards.answered };
  try {
    await keep({ ...entry, thumbnail: await thumbnail(picture) });
    await showKept();
  } catch {}
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
  blameNone();
}

// `again`: what failed, to be done again once there is a key.
function fail(error, again = null) {
  if (error.status === 401) return lock(again, error);
  element("error").textContent = error.message;
  element("error").hidden = false;
  if (error instanceof Missing) blame(error.field);
}

function lock(again, error) {
  locked = again;
  element("key-hint").textContent = key() ? error.message : "Whoever runs the server knows it. It is kept until you close this tab.";
  element("locked").hidden = false;
  element("key").focus();
}

// The page of the index: a form, and pictures with their boxes.

import { element, h } from "../shared/elements.js";
import { found, held, key, useKey } from "./api.js";
import { dataUrl } from "./picture.js";

let latest = 0; // of several searches the last one counts
let again = null; // what to do once there is a key

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(search);
});
element("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(element("key").value.trim());
  element("key").value = "";
  element("locked").hidden = true;
  attempt(again ?? about);
});
attempt(about);

async function attempt(act) {
  element("error").hidden = true;
  try {
    await act();
  } catch (error) {
    element("status").textContent = "";
    if (error.status === 401) return lock(act);
    element("error").textContent = error.status === 404 ? "This server has no index. Whoever runs it can start it with one." : error.message;
    element("error").hidden = false;
  }
}

function lock(act) {
  again = act;
  element("locked").hidden = false;
  element("key").focus();
}

async function about() {
  const { pictures, captions, text, objects } = await held();
  const many = (count, what) => (count ? `, ${count.toLocaleString("en")} with ${what}` : "");
  element("about").textContent = `${pictures.toLocaleString("en")} pictures on this server${many(captions, "captions")}${many(text, "read text")}${many(objects, "objects")}.`;
}

async function search() {
  const mine = ++latest;
  const value = (name) => element(name).value.trim();
  const [file] = element("file").files;
  const body = { ...(value("words") && { words: value("words") }), ...(value("text") && { text: value("text") }) };
  if (value("label")) body.has = [{ label: value("label"), ...(value("count") && { count: value("count") }) }];
  if (file) body.image = await dataUrl(file);
  if (!Object.keys(body).length) throw new Error("Say what to look for: words, printed text, an object or a picture.");
  element("status").textContent = "Searching …";
  const { results } = await found(body);
  if (mine !== latest) return;
  element("found").replaceChildren(...results.map(shown));
  element("status").textContent = results.length ? `${results.length} pictures, the best first` : "Nothing was found.";
}

function shown(hit, i) {
  const [lang, said] = Object.entries(hit.captions ?? {}).sort(([a], [b]) => (b === "en") - (a === "en"))[0] ?? [];
  return h(
    "li",
    { class: "card" },
    hit.picture ? h("img", { src: hit.picture, alt: hit.alt }) : h("p", { class: "soft" }, "The picture cannot be opened any more."),
    h("h2", {}, h("span", { class: "soft" }, `${i + 1} `), hit.path),
    said && h("p", { lang }, said),
    hit.text && h("p", { class: "soft" }, `Reads: ${hit.text}`),
  );
}

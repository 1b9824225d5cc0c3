// Earlier pictures and what was asked about them, in this browser only. A browser that refuses to keep anything keeps nothing.

import { remember, remembered } from "./settings.js";

const OFF = "paligemma-history";
const MOST = 40; // pictures

export const keeping = () => remembered(OFF) !== "off";
export const setKeeping = (on) => remember(OFF, on ? "on" : "off");

// {id, name, blobs, thumbnail, note, cards}; the same id again takes the place of the older one. A picture without cards is not kept.
export async function keep(entry) {
  if (!keeping()) return;
  if (!entry.cards.length) return remove(entry.id);
  await inStore("readwrite", (store) => store.put(entry));
  const ids = await inStore("readonly", (store) => store.getAllKeys());
  for (const id of ids.slice(0, -MOST)) await remove(id);
}

// The latest first.
export async function kept() {
  return (await inStore("readonly", (store) => store.getAll())).reverse();
}

export const remove = (id) => inStore("readwrite", (store) => store.delete(id));
export const forget = () => inStore("readwrite", (store) => store.clear());

let opened = null;

function database() {
  opened ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("paligemma", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("pictures", { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opened;
}

async function inStore(mode, act) {
  const store = (await database()).transaction("pictures", mode).objectStore("pictures");
  const request = act(store);
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

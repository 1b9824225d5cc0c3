// The list of earlier pictures, and the switch and the button that belong to it.

import { button, element, h } from "../shared/elements.js";
import { forget, keeping, kept, remove, setKeeping } from "./history.js";
import { TASKS } from "./tasks.js";

// `onOpen(entry)`: one was chosen. Gives a function: something else is kept now.
export function offerEarlier(onOpen, onError) {
  const guarded = (act) => () => act().catch(() => onError(new Error("This browser keeps no history here.")));
  element("keep").checked = keeping();
  element("keep").addEventListener("change", () => setKeeping(element("keep").checked));
  element("forget").addEventListener("click", guarded(async () => {
    await forget();
    await list(onOpen);
  })); // prettier-ignore
  const show = async () => element("history").open && (await list(onOpen));
  element("history").addEventListener("toggle", guarded(show));
  return async () => element("kept").contains(document.activeElement) || (await show()); // who is in it keeps the place
}

async function list(onOpen) {
  const entries = await kept();
  for (const image of element("kept").querySelectorAll("img")) URL.revokeObjectURL(image.src);
  element("forget").disabled = !entries.length;
  element("kept").replaceChildren(...(entries.length ? entries.map((entry) => one(entry, onOpen)) : [h("p", { class: "soft" }, "None yet.")]));
}

function one(entry, onOpen) {
  const titles = entry.cards.map(({ task, fields }) => TASKS[task].title(fields));
  const image = h("img", { src: URL.createObjectURL(entry.thumbnail), alt: "" });
  const open = button(image, () => onOpen(entry), { class: "open", "aria-label": `Open ${entry.name}: ${titles.join("; ")}` });
  const drop = button("Remove", async () => {
    await remove(entry.id);
    made.remove();
  }, { "aria-label": `Remove ${entry.name}` }); // prettier-ignore
  const made = h("div", { class: "earlier" }, open, h("span", { class: "soft", dir: "auto" }, titles[0] ?? ""), drop);
  return made;
}

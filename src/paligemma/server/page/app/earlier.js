// The list of earlier pictures, and the switch and the button that belong to it.

import { button, element, h } from "../shared/elements.js";
import { forget, keeping, kept, remove, setKeeping } from "./history.js";
import { TASKS } from "./tasks.js";

// `onOpen(entry)`: one was chosen.
export function offerEarlier(onOpen, onError) {
  const guarded = (act) => () => act().catch(() => onError(new Error("This browser keeps no history here.")));
  element("keep").checked = keeping();
  element("keep").addEventListener("change", () => setKeeping(element("keep").checked));
  element("forget").addEventListener("click", guarded(async () => {
    await forget();
    await list(onOpen);
  })); // prettier-ignore
  element("history").addEventListener("toggle", guarded(async () => element("history").open && (await list(onOpen))));
}

async function list(onOpen) {
  for (const image of element("kept").querySelectorAll("img")) URL.revokeObjectURL(image.src);
  const entries = await kept();
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

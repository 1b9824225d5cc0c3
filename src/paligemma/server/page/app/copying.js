// To the clipboard, or where there is none, to a file.

import { h } from "../shared/elements.js";
import { encode } from "./picture.js";

// Resolves with what was done, in words.
export async function copyText(text) {
  if (navigator.clipboard) await navigator.clipboard.writeText(text);
  else {
    // An address that is not secure has no clipboard but this old one.
    const field = h("textarea", { class: "hidden" }, text);
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  return "Copied.";
}

// PNG.
export async function copyPicture(canvas, name) {
  const blob = await encode(canvas, "image/png");
  try {
    await navigator.clipboard.write([new ClipboardItem({ "image/png": blob })]);
    return "Copied.";
  } catch {
    const link = h("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    return `Saved as ${name}.`;
  }
}

// Why an answer: how sure the model was of each word, what else might have stood there, and where in the picture it looked. The server is
// asked when somebody wants to know, and what it says is kept with the answer.

import { h, rove } from "../shared/elements.js";
import { hottest } from "./heat.js";
import { percent, where } from "./objects.js";

const WORTH_SAYING = 0.01; // what is less probable is left out
const PLACE = /^<(loc\d{4}|seg\d{3})>$/; // a token of an object that its name comes behind
const OPEN = "How sure was it, and where did it look?";

export class Why {
  // `ask(card, signal)`: resolves with the explanation. `onPoint(part or null)`: where the model looked for that part is shown, or no more.
  constructor(card, ask, onPoint) {
    Object.assign(this, { card, ask, onPoint, pressed: null, asking: null }); // `asking`: an AbortController, while the server is asked
    this.told = h("p", { class: "soft", role: "status" });
    this.list = h("ul", { "aria-label": "Words of the answer" });
    this.root = h("details", { class: "why" }, h("summary", {}, OPEN), this.told, this.list);
    this.root.addEventListener("toggle", () => (this.root.open ? this.open() : this.close()));
  }

  async open() {
    const { kept } = this.card;
    if (this.asking || this.list.children.length) return;
    const asking = (this.asking = new AbortController());
    this.told.textContent = "Looking again …";
    try {
      this.fill(kept.explanation ?? (await this.ask(this.card, asking.signal)));
    } catch (error) {
      if (this.asking === asking) this.told.textContent = error.message;
    } finally {
      if (this.asking === asking) this.asking = null;
    }
  }

  close() {
    this.leave();
    this.release();
    this.onPoint(null);
  }

  // Nobody wants to know any more.
  leave() {
    this.asking?.abort();
    this.asking = null;
  }

  fill({ tokens, parts }) {
    this.told.textContent = parts.length ? "Point at a word: the picture shows where the model looked for it." : "There are no words.";
    this.parts = parts;
    this.list.replaceChildren(...parts.map((part, i) => h("li", {}, this.row(part, i, tokens))));
    rove(this.list);
  }

  row(part, i, tokens) {
    const first = tokens.slice(part.start, part.stop).find(({ text }) => !PLACE.test(text));
    const others = first?.likely.filter(({ text, prob }) => text !== first.text && prob >= WORTH_SAYING) ?? []; // of a name: of its beginning
    const { width, height } = this.card.picture;
    return h(
      "button",
      {
        type: "button",
        "data-at": i,
        "aria-pressed": "false",
        onpointerenter: () => this.onPoint(part),
        onpointerleave: () => this.onPoint(this.pressed),
        onfocus: () => this.onPoint(part),
        onblur: () => this.onPoint(this.pressed),
        onclick: () => this.press(part),
      },
      h("b", { dir: "auto" }, part.label || "(no name)"),
      h("span", { class: "size", dir: "auto" }, others.map(({ text, prob }) => `or ${text.trim() || "an end"} ${percent(prob)}`).join(", ")),
      h("span", { class: "hidden" }, `looked ${where(hottest(part.heat, width, height), width, height)}`),
      h("span", { class: "number score" }, percent(part.score)),
    );
  }

  // A word that was clicked stays shown until another is, or it is clicked again.
  press(part) {
    const pressed = this.pressed === part ? null : part;
    this.onPoint(pressed); // another answer may have been shown, then this lets go of what was pressed
    this.pressed = pressed;
    this.mark();
  }

  // Something else is shown now.
  release() {
    this.pressed = null;
    this.mark();
  }

  mark() {
    for (const row of this.list.querySelectorAll("button")) row.setAttribute("aria-pressed", this.parts[row.dataset.at] === this.pressed);
  }
}

// A question about the picture with its answer, and what can be done with it.

import { css, inksOf } from "../shared/draw.js";
import { button, h, rove } from "../shared/elements.js";
import { address, key } from "./api.js";
import { copyPicture, copyText } from "./copying.js";
import { above, labelOf, objectsOf, percent, toCoco, where } from "./objects.js";
import { asPrograms } from "./requests.js";
import { canSpeak, speak } from "./speech.js";
import { drawnPicture } from "./stage.js";
import { TASKS } from "./tasks.js";
import { Why } from "./why.js";

const PLACE = /(?:<loc\d{4}>){4}/g;

export class Card {
  // `kept`: what the history keeps: {task, fields, body, response, least}. `picture`: what it is about.
  // `cards`: all of them, which know the picture's objects.
  constructor(kept, picture, cards) {
    Object.assign(this, { kept, picture, cards, text: "", all: null });
    this.title = h("h2", { dir: "auto" }, TASKS[kept.task].title(kept.fields));
    this.body = h("div", { class: "answer" });
    this.root = h("article", { class: "card" }, this.title, this.body);
    if (kept.response) this.finish();
    else this.wait();
  }

  get result() {
    return this.kept.response.result;
  }

  get objects() {
    return this.all ? above(this.all, this.kept.least) : [];
  }

  // The language of the answer, "" where nobody knows.
  get lang() {
    const { task, fields } = this.kept;
    if (this.all || task === "describe-box") return "en";
    return TASKS[task].fields.includes("lang") ? fields.lang : "";
  }

  // While the answer comes

  wait() {
    this.text = "";
    this.writing = h("p", { class: "text", dir: "auto" }, "…");
    this.root.setAttribute("aria-busy", "true");
    this.body.replaceChildren(this.writing);
  }

  write(piece) {
    this.text += piece;
    const places = this.text.match(PLACE)?.length;
    const found = places ? `${places} so far …` : "…"; // places are numbers, which say nothing to anybody
    this.writing.textContent = this.text.startsWith("<loc") ? found : this.text;
  }

  // Once it is there

  finish() {
    const { result } = this;
    this.all = result.boxes || result.masks ? objectsOf(result) : null;
    this.root.removeAttribute("aria-busy");
    const lines = this.all ? this.places() : [this.words()];
    this.told = h("p", { class: "soft", role: "status" });
    const explained = this.cards.explain && this.picture.blobs.length === 1;
    this.why = explained ? new Why(this, this.cards.explain, (part) => this.cards.look(this, part)) : null;
    const more = [this.why?.root, this.requests()].filter(Boolean);
    this.body.replaceChildren(...lines, this.facts(), this.actions(), this.told, ...more);
  }

  words() {
    return h("p", { class: "text", dir: "auto", lang: this.lang || null }, this.result.text || "(no answer)");
  }

  places() {
    if (!this.all.length) return [h("p", { class: "text" }, "Nothing of that name was found.")];
    this.list = h("ul");
    this.fillList();
    return this.all.some(({ score }) => score != null) ? [this.threshold(), this.list] : [this.list];
  }

  threshold() {
    const shown = h("span", { class: "number" });
    const slider = h("input", { type: "range", min: 0, max: 100, step: 1, "aria-label": "At least this sure" });
    slider.value = 100 * this.kept.least;
    const tell = () => {
      shown.textContent = `${slider.value} %: ${this.objects.length} of ${this.all.length}`;
      slider.setAttribute("aria-valuetext", `${slider.value} percent, ${this.objects.length} of ${this.all.length} shown`);
    };
    slider.addEventListener("input", () => {
      this.kept.least = slider.value / 100;
      tell();
      this.fillList();
      this.cards.show(this);
    });
    slider.addEventListener("change", () => this.cards.onChange());
    tell();
    return h("label", { class: "threshold" }, "At least", slider, shown);
  }

  fillList() {
    const inks = inksOf(this.all);
    const rows = this.objects.map((one) => {
      const swatch = h("span", { class: "swatch" });
      swatch.style.background = css(inks.get(one.label));
      const [x0, y0, x1, y1] = one.box.map(Math.round);
      const size = one.mask ? `${one.mask.area.toLocaleString("en")} pixels` : `x ${x0}–${x1}, y ${y0}–${y1}`;
      const row = h(
        "button",
        {
          type: "button",
          "data-at": this.all.indexOf(one),
          "aria-pressed": "false",
          onpointerenter: () => this.cards.point(this, one),
          onpointerleave: () => this.cards.point(this, null),
          onfocus: () => this.cards.point(this, one),
          onblur: () => this.cards.point(this, null),
          onclick: () => this.cards.choose(this, one),
        },
        swatch,
        h("b", { dir: "auto" }, labelOf(one)),
        h("span", { class: "number size" }, size),
        h("span", { class: "hidden" }, where(one.box, this.result.width, this.result.height)),
        h("span", { class: "number score" }, percent(one.score)),
      );
      return h("li", {}, row);
    });
    this.list.replaceChildren(...rows);
    rove(this.list);
  }

  // The row of `chosen` stands out; `pressed`: that it stays so.
  mark(chosen, pressed) {
    for (const row of this.list?.querySelectorAll("button") ?? []) {
      row.classList.toggle("on", this.all[row.dataset.at] === chosen);
      row.setAttribute("aria-pressed", this.all[row.dataset.at] === pressed);
    }
  }

  facts() {
    const { timing, model } = this.kept.response;
    const { score, stop, invalid } = this.result;
    const facts = [
      this.all || score == null ? null : `${percent(score)} sure`,
      stop === "length" ? "cut off: the answer was longer" : null,
      invalid ? `${invalid} could not be read` : null,
      timing?.total == null ? null : `${timing.total.toFixed(2)} s`,
      model,
    ];
    return h("p", { class: "soft facts" }, facts.filter(Boolean).join(" · "));
  }

  actions() {
    const { all, result, picture } = this;
    const tell = (doing) => async () => {
      this.told.textContent = "";
      this.told.textContent = await doing().catch(() => "The browser does not allow it.");
    };
    const json = (value) => () => copyText(JSON.stringify(value(), null, 2));
    const stem = picture.name.replace(/\.\w+$/, "");
    const drawn = () => copyPicture(drawnPicture(picture, this.objects, all), `${stem}-found.png`);
    const copies = [
      all ? null : button("Copy text", tell(() => copyText(result.text))),
      button("Copy JSON", tell(json(() => this.filtered()))),
      all && button("Copy COCO", tell(json(() => toCoco(this.objects, { ...result, name: picture.name })))),
      all && button("Copy picture", tell(drawn)),
    ];
    return h(
      "div",
      { class: "row actions" },
      all?.length ? button("Show on the picture", () => this.cards.show(this), { class: "show" }) : null,
      canSpeak && button("Read aloud", () => speak(this.inWords(), this.lang), { class: "aloud" }),
      ...copies,
      button("Remove", () => this.cards.remove(this), { "aria-label": `Remove: ${this.title.textContent}` }),
    );
  }

  // The result without what the slider leaves out.
  filtered() {
    const { result } = this;
    const name = result.boxes ? "boxes" : "masks";
    return this.all ? { ...result, [name]: above(result[name], this.kept.least) } : result;
  }

  requests() {
    const { task, body } = this.kept;
    const made = h("details", { class: "request" }, h("summary", {}, "Show the request"));
    made.addEventListener("toggle", () => {
      if (made.children.length > 1) return;
      const programs = asPrograms(task, body, this.picture, address("").replace(/\/$/, ""), Boolean(key()));
      for (const [name, text] of Object.entries(programs)) {
        const copy = button("Copy", async () => (copy.textContent = await copyText(text)), { "aria-label": `Copy: ${name}` });
        const code = h("pre", { tabindex: 0, role: "region", "aria-label": name }, h("code", {}, text));
        made.append(h("div", { class: "program" }, h("h3", {}, name), copy), code);
      }
    });
    return made;
  }

  // The answer for the ear.
  inWords() {
    if (!this.all) return this.result.text || "No answer.";
    if (!this.all.length) return "Nothing of that name was found.";
    const { width, height } = this.result;
    return `${this.objects.length} found: ${this.objects.map((one) => `${labelOf(one)} ${where(one.box, width, height)}`).join("; ")}.`;
  }
}

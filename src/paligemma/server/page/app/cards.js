// All questions about the picture, the latest first, and which one's objects are on it.

import { element } from "../shared/elements.js";
import { Card } from "./card.js";
import { Stage } from "./stage.js";

export class Cards {
  // `onChange`: something that the history keeps is different now.
  constructor(onChange) {
    this.onChange = onChange;
    this.explain = null; // (card, signal) -> a promise of where the model looked, where the server tells that
    this.stage = new Stage({ onPoint: (object) => this.point(this.current, object), onChoose: (object) => this.choose(this.current, object) });
    this.list = [];
    this.current = null;
    this.pressed = null; // the object that was chosen
  }

  // Another picture, and what was asked about it before.
  begin(picture, kept) {
    for (const card of this.list) card.why?.leave();
    this.picture = picture;
    this.stage.show(picture);
    this.list = kept.map((one) => new Card(one, picture, this));
    this.current = this.pressed = null;
    this.render();
    if (this.list.length) this.show(this.list[0]);
  }

  add(kept) {
    const card = new Card(kept, this.picture, this);
    this.list.unshift(card);
    this.render();
    return card;
  }

  render() {
    element("asked").replaceChildren(...this.list.map((card) => card.root));
  }

  get answered() {
    return this.list.map(({ kept }) => kept).filter(({ response }) => response);
  }

  // This card's objects on the picture, and no other's.
  show(card) {
    this.current = card;
    this.pressed = null;
    for (const one of this.list) {
      one.root.classList.toggle("current", one === card && this.list.length > 1);
      one.mark(null, null);
      one.why?.release();
      const again = one.root.querySelector(".show");
      if (again) again.hidden = one === card && document.activeElement !== again;
    }
    this.stage.showObjects(card.objects, card.all ?? []);
  }

  // Where the model looked for a part of this card's answer; null: the objects again.
  look(card, part) {
    if (!part && card !== this.current) return;
    if (card !== this.current) this.show(card);
    this.stage.showHeat(part);
  }

  // The mouse or the keyboard is on an object, in the list or on the picture: it stands out in both.
  point(card, object) {
    if (!card || (card !== this.current && !object)) return;
    if (card !== this.current) this.show(card);
    if (object) card.why?.release();
    const chosen = object ?? this.pressed;
    card.mark(chosen, this.pressed);
    this.stage.choose(chosen, this.pressed);
  }

  // An object that was clicked stands out until another is, or it is clicked again.
  choose(card, object) {
    if (card !== this.current) this.show(card);
    card.why?.release();
    this.stage.showHeat(null);
    this.pressed = this.pressed === object ? null : object;
    card.mark(this.pressed, this.pressed);
    this.stage.choose(this.pressed, this.pressed);
  }

  remove(card) {
    this.drop(card);
    this.onChange();
    (this.list[0]?.root.querySelector("button") ?? element("ask")).focus();
  }

  drop(card) {
    this.list = this.list.filter((one) => one !== card);
    card.root.remove();
    card.why?.leave();
    if (card !== this.current) return;
    this.current = null;
    if (this.list.length) this.show(this.list[0]);
    else this.stage.showObjects([], []);
  }
}

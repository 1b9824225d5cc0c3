// The picture with what was found on it. Each object is a button over its box, for the mouse, the keyboard and screen readers.

import { paint, scaleIn, shape } from "../shared/canvas.js";
import { drawObjects, inksOf } from "../shared/draw.js";
import { element, h, rove } from "../shared/elements.js";
import { drawHeat } from "./heat.js";
import { labelOf, percent } from "./objects.js";

export class Stage {
  // `onPoint(object or null)`: the mouse or the keyboard is on it now. `onChoose(object)`: it was clicked.
  constructor({ onPoint, onChoose }) {
    Object.assign(this, { onPoint, onChoose, picture: null, objects: [], all: [], chosen: null, heat: null });
    new ResizeObserver(() => this.picture && this.paint()).observe(element("drop"));
  }

  show(picture) {
    this.picture = picture;
    element("stage").style.setProperty("--ratio", picture.width / picture.height);
    element("stage").hidden = false;
    element("hint").hidden = true;
    element("drop").classList.add("full");
    this.showObjects([], []);
  }

  // `all`: of the answer, for the colours; `objects`: those to show.
  showObjects(objects, all) {
    Object.assign(this, { objects, all, chosen: null, heat: null });
    const { width, height } = this.picture;
    const bySize = [...objects].sort((a, b) => size(b.box) - size(a.box)); // a small one lies over a large one
    const marks = objects.map((one, i) => this.mark(one, i, bySize.indexOf(one), width, height));
    element("marks").replaceChildren(...marks);
    rove(element("marks"));
    element("view").setAttribute("aria-label", objects.length ? `The picture, with ${objects.length} marked` : "The picture");
    this.paint();
  }

  mark(one, at, over, width, height) {
    const made = h("button", {
      type: "button",
      "data-at": at,
      "aria-pressed": "false",
      "aria-label": `${labelOf(one)} ${percent(one.score)}`.trim(),
      onpointerenter: () => this.onPoint(one),
      onpointerleave: () => this.onPoint(null),
      onfocus: () => this.onPoint(one),
      onblur: () => this.onPoint(null),
      onclick: () => this.onChoose(one),
    });
    const [x0, y0, x1, y1] = one.box;
    const share = (value, whole) => `${(100 * value) / whole}%`;
    Object.assign(made.style, {
      left: share(x0, width), top: share(y0, height), width: share(x1 - x0, width), height: share(y1 - y0, height), zIndex: over,
    }); // prettier-ignore
    return made;
  }

  // The one that stands out. `pressed`: it stays so.
  choose(chosen, pressed) {
    this.chosen = chosen;
    if (chosen) this.heat = null;
    for (const one of element("marks").children) one.setAttribute("aria-pressed", this.objects[one.dataset.at] === pressed);
    this.paintObjects();
  }

  // Where the model looked, in place of the objects; null: the objects again.
  showHeat(part) {
    this.heat = part;
    this.paintObjects();
  }

  paint() {
    this.scale = scaleIn(this.picture, element("stage"));
    for (const canvas of [element("view"), element("drawn")]) shape(canvas, this.picture, this.scale);
    paint(element("view"), this.picture.bitmap);
    this.paintObjects();
  }

  paintObjects() {
    const canvas = element("drawn");
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    // Lines and letters are as thick on a phone as on a wide screen: what counts are the pixels of the screen.
    const unit = (1.75 * Math.max(canvas.width, canvas.height)) / Math.max(element("stage").clientWidth, element("stage").clientHeight, 1);
    const sizes = { scale: this.scale, unit };
    if (this.heat) drawHeat(context, this.heat, sizes);
    else drawObjects(context, this.objects, inksOf(this.all), { ...sizes, chosen: this.chosen });
  }
}

// The drawn picture by itself, as a canvas: to copy or to keep.
export function drawnPicture({ bitmap, width, height }, objects, all) {
  const canvas = document.createElement("canvas");
  const scale = Math.max(1, 512 / Math.max(width, height)); // writing needs some room
  shape(canvas, { width, height }, scale);
  paint(canvas, bitmap);
  const unit = Math.max(1.75, Math.max(canvas.width, canvas.height) / 500);
  drawObjects(canvas.getContext("2d"), objects, inksOf(all), { scale, unit });
  return canvas;
}

const size = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);

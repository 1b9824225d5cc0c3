// A box that the user draws on the picture: with the mouse or a finger, with the arrow keys, or by typing its edges. The form's fields hold it.

import { element } from "../shared/elements.js";

const NAMES = ["left", "top", "right", "bottom"];
const field = (name) => element("form").elements.namedItem(name);
const clamp = (value, most) => Math.max(0, Math.min(most, value));

export class Frame {
  constructor() {
    this.size = null; // [width, height] of the picture
    this.on = false;
    for (const name of NAMES) field(name).addEventListener("input", () => this.place());
    element("frame").addEventListener("keydown", (event) => this.key(event));
    element("stage").addEventListener("pointerdown", (event) => this.draw(event));
  }

  // A new picture: the middle of it is as good as any box.
  fit(width, height) {
    this.size = [width, height];
    this.set([width / 4, height / 4, (3 * width) / 4, (3 * height) / 4]);
  }

  show(on) {
    this.on = on;
    element("frame").hidden = element("frame-hint").hidden = !on;
    element("stage").classList.toggle("drawing", on);
  }

  get box() {
    return NAMES.map((name) => Number(field(name).value));
  }

  set(box) {
    NAMES.forEach((name, i) => {
      field(name).max = this.size[i % 2];
      field(name).value = Math.round(clamp(box[i], this.size[i % 2]));
    });
    this.place();
  }

  place() {
    if (!this.size) return;
    const [left, top, right, bottom] = this.box.map((value, i) => `${(100 * clamp(value, this.size[i % 2])) / this.size[i % 2]}%`);
    Object.assign(element("frame").style, { left, top, right: `calc(100% - ${right})`, bottom: `calc(100% - ${bottom})` });
    element("frame").setAttribute("aria-label", `The box: ${NAMES.map((name) => `${name} ${field(name).value}`).join(", ")}`);
  }

  key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    const far = Math.max(1, Math.round(Math.min(...this.size) / 50));
    const move = (edge, axis, least, most) => Math.max(least, Math.min(most, edge + step[axis] * far));
    const [left, top, right, bottom] = this.box;
    const [width, height] = this.size;
    if (event.shiftKey) return this.set([left, top, move(right, 0, left + 1, width), move(bottom, 1, top + 1, height)]);
    const [x, y] = [move(left, 0, 0, width - (right - left)), move(top, 1, 0, height - (bottom - top))];
    this.set([x, y, x + right - left, y + bottom - top]);
  }

  draw(event) {
    if (!this.on || event.button) return;
    event.preventDefault();
    const stage = element("stage");
    const bounds = stage.getBoundingClientRect();
    const at = ({ clientX, clientY }) => [
      clamp(((clientX - bounds.left) / bounds.width) * this.size[0], this.size[0]),
      clamp(((clientY - bounds.top) / bounds.height) * this.size[1], this.size[1]),
    ];
    const [x, y] = at(event);
    const move = (moved) => {
      const [x1, y1] = at(moved);
      this.set([Math.min(x, x1), Math.min(y, y1), Math.max(x, x1), Math.max(y, y1)]);
    };
    const end = () => stage.removeEventListener("pointermove", move);
    stage.setPointerCapture(event.pointerId);
    stage.addEventListener("pointermove", move);
    stage.addEventListener("pointerup", end, { once: true });
    stage.addEventListener("pointercancel", end, { once: true });
    element("frame").focus({ preventScroll: true });
  }
}

// Where a soft mask lands in the picture, as `tasks/segment.py` pastes it.

import { resample } from "./resize.js";

// Soft mask (side, side), object above 0 -> {x0, y0, x1, y1, covered}: whole pixels, and for each of that part 1 where the object is.
export function paste(soft, side, bins, width, height, loc) {
  const [y0, x0, y1, x1] = bins.map((bin, i) => roundEven((bin / (loc[1] - loc[0] - 1)) * (i % 2 ? width : height)));
  if (y1 <= y0 || x1 <= x0) return { x0, y0, x1: x0, y1: y0, covered: new Uint8Array(0) };
  const large = resample(soft, side, side, 1, x1 - x0, y1 - y0, "bilinear", false);
  return { x0, y0, x1, y1, covered: Uint8Array.from(large, (value) => (value > 0 ? 1 : 0)) };
}

// To the nearest whole number, halves to the even one: Python's.
export function roundEven(x) {
  const floor = Math.floor(x);
  const rest = x - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 !== 0) ? floor + 1 : floor;
}

// COCO's compressed run lengths -> a mask, as `mask_formats.py` reads them.

// Lengths of the runs of background, object, background, ... down the columns.
function runLengths(text) {
  const counts = [];
  let value = 0;
  let shift = 0;
  for (const character of text) {
    const bits = character.charCodeAt(0) - 48;
    value |= (bits & 31) << shift;
    shift += 5;
    if (bits & 32) continue;
    if (bits & 16) value -= 1 << shift;
    counts.push(counts.length > 2 ? value + counts.at(-2) : value);
    value = shift = 0;
  }
  return counts;
}

// {size: [H, W], counts} -> {x0, y0, x1, y1, covered, area}: whole pixels, and for each of that part, row by row, 1 where the object is.
// Only that part is ever in memory: a picture of 50 million pixels may have many objects.
export function readMask({ size: [height], counts }) {
  const runs = [];
  let at = 0;
  let [x0, y0, x1, y1, area] = [Infinity, Infinity, 0, 0, 0];
  for (const [i, length] of runLengths(counts).entries()) {
    if (i % 2 && length) {
      const last = at + length - 1;
      const [left, right] = [Math.floor(at / height), Math.floor(last / height)];
      const wraps = left !== right; // over the bottom of a column to the top of the next
      runs.push([at, at + length]);
      x0 = Math.min(x0, left);
      x1 = Math.max(x1, right + 1);
      y0 = wraps ? 0 : Math.min(y0, at % height);
      y1 = wraps ? height : Math.max(y1, (last % height) + 1);
      area += length;
    }
    at += length;
  }
  if (!area) return { x0: 0, y0: 0, x1: 0, y1: 0, covered: new Uint8Array(0), area };
  const covered = new Uint8Array((x1 - x0) * (y1 - y0));
  for (const [start, end] of runs) {
    for (let p = start; p < end; p++) covered[((p % height) - y0) * (x1 - x0) + Math.floor(p / height) - x0] = 1;
  }
  return { x0, y0, x1, y1, covered, area };
}

// The objects of an answer, boxes and masks alike: {label, box, score, mask}. A text has none.

import { readMask } from "./rle.js";

export function objectsOf(result) {
  const found = result.boxes ?? result.masks ?? [];
  return found.map(({ label, box, score, rle, ...edges }) => {
    const { x0, y0, x1, y1 } = box ?? edges;
    return { label, box: [x0, y0, x1, y1], score, mask: rle ? readMask(rle) : null, rle };
  });
}

// An object without a score is never left out.
export const above = (objects, least) => objects.filter(({ score }) => score == null || score >= least);

export const percent = (score) => (score == null ? "" : `${Math.round(100 * score)} %`);
export const labelOf = ({ label }) => label || "(no name)";

// "at the top left": for those who do not see where.
export function where([x0, y0, x1, y1], width, height) {
  const third = (middle, whole) => Math.min(2, Math.floor((3 * middle) / whole));
  const across = ["left", "", "right"][third((x0 + x1) / 2, width)];
  const down = ["top", "", "bottom"][third((y0 + y1) / 2, height)];
  return across || down ? `at the ${[down, across].filter(Boolean).join(" ")}` : "in the middle";
}

// COCO's format, as `Detections.to_coco` and `Masks.to_coco` write it, with the picture and the categories around it.
export function toCoco(objects, { width, height, name }) {
  const labels = [...new Set(objects.map((one) => one.label))];
  return {
    images: [{ id: 1, width, height, file_name: name }],
    categories: labels.map((label, i) => ({ id: i + 1, name: label })),
    annotations: objects.map(({ label, box: [x0, y0, x1, y1], score, mask, rle }, i) => ({
      id: i + 1,
      image_id: 1,
      category_id: labels.indexOf(label) + 1,
      bbox: [x0, y0, x1 - x0, y1 - y0],
      area: mask ? mask.area : (x1 - x0) * (y1 - y0),
      iscrowd: 0,
      ...(rle ? { segmentation: rle } : {}),
      ...(score == null ? {} : { score }),
    })),
  };
}

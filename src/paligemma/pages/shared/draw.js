// Boxes, masks and labels on a canvas. Objects are told apart by colour and by name.

// As `drawing.py` has them: people with colour-blindness can tell them apart.
export const COLOURS = [
  [230, 159, 0], [86, 180, 233], [0, 158, 115], [240, 228, 66], [0, 114, 178], [213, 94, 0], [204, 121, 167],
  [51, 34, 136], [170, 68, 153], [153, 153, 51], [136, 34, 85], [17, 119, 51], [221, 221, 221], [102, 153, 204],
]; // prettier-ignore

const FAINT = 0.25; // of what is not chosen while something is

export const css = (ink) => `rgb(${ink.join(" ")})`;

// Label -> colour, over all objects of an answer, so that a colour stays when others are left out.
export function inksOf(objects) {
  const labels = [...new Set(objects.map((one) => one.label))];
  return new Map(labels.map((label, i) => [label, COLOURS[i % COLOURS.length]]));
}

// `objects`: {label, box, score or null, mask or null} each, in pixels of the picture. `scale`: canvas pixels for each of these. `unit`: a thin
// line's width. `chosen`: an object, or null.
export function drawObjects(context, objects, inks, { scale, unit, chosen = null }) {
  const bySize = [...objects].sort((a, b) => area(b.box) - area(a.box)); // a small box inside a large one stays visible
  const ordered = chosen ? [...bySize.filter((one) => one !== chosen), chosen] : bySize;
  const opacity = (one) => (chosen && one !== chosen ? FAINT : 1);
  const each = (paint) => {
    for (const one of ordered) {
      context.globalAlpha = opacity(one);
      paint(one, inks.get(one.label), one.box.map((v) => v * scale));
    }
  };
  each((one, ink) => one.mask && drawMask(context, one.mask, ink, scale));
  each((one, ink, box) => drawBox(context, box, ink, one === chosen ? 1.5 * unit : unit, Boolean(one.mask) && one !== chosen));
  each((one, ink, box) => drawLabel(context, one, box, ink, unit));
  context.globalAlpha = 1;
}

const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);

// Black or white, whichever is easier to read on it.
function contrast(ink) {
  const [r, g, b] = ink.map((v) => (v / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "black" : "white";
}

// `mask`: {x0, y0, x1, y1, covered}: whole pixels, and for each of that part, row by row, 1 where the object is.
function drawMask(context, mask, ink, scale) {
  const { x0, y0, x1, y1 } = mask;
  if (x1 <= x0 || y1 <= y0) return;
  mask.layer ??= paintMask(mask, ink);
  context.drawImage(mask.layer, x0 * scale, y0 * scale, (x1 - x0) * scale, (y1 - y0) * scale);
}

// The object's colour, clear inside and solid along its rim.
function paintMask({ x0, y0, x1, y1, covered }, ink) {
  const [width, height] = [x1 - x0, y1 - y0];
  const image = new ImageData(width, height);
  const { data } = image;
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && covered[y * width + x];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!at(x, y)) continue;
      const rim = !at(x - 1, y) || !at(x + 1, y) || !at(x, y - 1) || !at(x, y + 1);
      const p = 4 * (y * width + x);
      for (let c = 0; c < 3; c++) data[p + c] = ink[c];
      data[p + 3] = rim ? 255 : 110;
    }
  }
  const layer = document.createElement("canvas");
  [layer.width, layer.height] = [width, height];
  layer.getContext("2d").putImageData(image, 0, 0);
  return layer;
}

function drawBox(context, [x0, y0, x1, y1], ink, unit, thin) {
  context.lineJoin = "round";
  const lines = thin ? [[unit / 2, css(ink)]] : [[2.6 * unit, contrast(ink)], [1.6 * unit, css(ink)]];
  for (const [width, colour] of lines) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
}

function drawLabel(context, { label, score }, [x0, y0, , y1], ink, unit) {
  const text = `${label}${score == null ? "" : `  ${Math.round(100 * score)} %`}`.trim();
  if (!text) return;
  const size = 7 * unit;
  context.font = `600 ${size}px system-ui, sans-serif`;
  const most = context.canvas.width - 3 * unit; // a long name is drawn narrower
  const [width, height] = [Math.min(context.measureText(text).width, most) + 3 * unit, size + 2 * unit];
  const x = Math.max(0, Math.min(x0, context.canvas.width - width));
  const y = y0 >= height ? y0 - height : Math.min(y1, context.canvas.height - height);
  context.fillStyle = css(ink);
  context.beginPath();
  context.roundRect(x, y, width, height, unit);
  context.fill();
  context.fillStyle = contrast(ink);
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.fillText(text, x + 1.5 * unit, y + height / 2, most);
}

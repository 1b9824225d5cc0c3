// A picture on a canvas with masks, boxes and labels, in the colours that this package draws with everywhere.

const [LEAST, MOST] = [480, 2400]; // pixels of the canvas's longer side

// `bitmap`: the picture. `objects`: of an answer, or none. `colours`: of web.json, one for each different label.
export function draw(canvas, bitmap, objects, colours) {
  const shown = canvas.parentElement.clientWidth * devicePixelRatio;
  const scale = Math.min(Math.max(LEAST, shown), MOST) / Math.max(bitmap.width, bitmap.height);
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const unit = 1.75 * devicePixelRatio;
  const inks = inksOf(objects, colours);
  for (const one of objects) if (one.mask) drawMask(context, one.mask, scale, inks.get(one.label));
  const placed = [...objects].sort((a, b) => area(b.box) - area(a.box)); // a small box inside a large one stays visible
  for (const one of placed) drawBox(context, one.box.map((v) => v * scale), inks.get(one.label), unit, Boolean(one.mask));
  for (const one of placed) drawLabel(context, one, one.box.map((v) => v * scale), inks.get(one.label), unit);
}

// Label -> colour.
export function inksOf(objects, colours) {
  const labels = [...new Set(objects.map((one) => one.label))];
  return new Map(labels.map((label, i) => [label, colours[i % colours.length]]));
}

export const css = (ink, alpha = 1) => `rgb(${ink.join(" ")} / ${alpha})`;

const area = ([x0, y0, x1, y1]) => (x1 - x0) * (y1 - y0);

// Black or white, whichever is easier to read on it.
function contrast(ink) {
  const [r, g, b] = ink.map((v) => (v / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.18 ? "black" : "white";
}

function drawMask(context, { x0, y0, x1, y1, covered }, scale, ink) {
  const [width, height] = [x1 - x0, y1 - y0];
  if (!width || !height) return;
  const layer = new OffscreenCanvas(width, height);
  const image = new ImageData(width, height);
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && covered[y * width + x];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (!at(x, y)) continue;
      const rim = !at(x - 1, y) || !at(x + 1, y) || !at(x, y - 1) || !at(x, y + 1);
      image.data.set([...ink, rim ? 255 : 110], 4 * (y * width + x));
    }
  }
  layer.getContext("2d").putImageData(image, 0, 0);
  context.drawImage(layer, x0 * scale, y0 * scale, width * scale, height * scale);
}

function drawBox(context, [x0, y0, x1, y1], ink, unit, faint) {
  context.lineJoin = "round";
  for (const [width, colour] of faint ? [[1, css(ink)]] : [[unit + 3, contrast(ink)], [unit + 1, css(ink)]]) {
    context.lineWidth = width;
    context.strokeStyle = colour;
    context.strokeRect(x0, y0, x1 - x0, y1 - y0);
  }
}

function drawLabel(context, { label, score }, [x0, y0, , y1], ink, unit) {
  const text = `${label}  ${Math.round(100 * score)}%`;
  const size = 7 * unit;
  context.font = `600 ${size}px system-ui, sans-serif`;
  const [width, height] = [context.measureText(text).width + 3 * unit, size + 2 * unit];
  const x = Math.max(0, Math.min(x0, context.canvas.width - width));
  const y = y0 >= height ? y0 - height : Math.min(y1, context.canvas.height - height);
  context.fillStyle = css(ink);
  context.beginPath();
  context.roundRect(x, y, width, height, unit);
  context.fill();
  context.fillStyle = contrast(ink);
  context.textBaseline = "middle";
  context.fillText(text, x + 1.5 * unit, y + height / 2);
}

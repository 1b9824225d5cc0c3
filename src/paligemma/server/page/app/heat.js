// Where the model looked, over the picture: the hotter, the less is seen through it; a ring about the hottest patch. As `drawing.py` draws it.

export const COLOURS = [
  [26, 0, 70], [122, 20, 110], [205, 60, 75], [245, 140, 40], [250, 245, 120],
]; // prettier-ignore

// `part`: {heat, box or null}: a number for each patch, row by row; a box in pixels of the picture. `scale`, `unit`: see `drawObjects`.
export function drawHeat(context, { heat, box }, { scale, unit }) {
  const [rows, columns] = [heat.length, heat[0].length];
  const values = heat.flat();
  const [least, most] = [Math.min(...values), Math.max(...values)];
  const { width, height } = context.canvas;
  context.fillStyle = "rgb(255 255 255 / 25%)";
  context.fillRect(0, 0, width, height);
  context.imageSmoothingQuality = "high";
  context.drawImage(layer(values.map((value) => (most > least ? (value - least) / (most - least) : 0)), rows, columns), 0, 0, width, height);
  if (box) outline(context, box.map((v) => v * scale), unit); // prettier-ignore
  const hottest = values.indexOf(most);
  ring(context, ((hottest % columns) + 0.5) * (width / columns), (Math.floor(hottest / columns) + 0.5) * (height / rows), unit);
}

// The middle of the hottest patch, as a box without extent, in pixels of a picture of that size.
export function hottest(heat, width, height) {
  const values = heat.flat();
  const at = values.indexOf(Math.max(...values));
  const x = (((at % heat[0].length) + 0.5) * width) / heat[0].length;
  const y = ((Math.floor(at / heat[0].length) + 0.5) * height) / heat.length;
  return [x, y, x, y];
}

function layer(levels, rows, columns) {
  const image = new ImageData(columns, rows);
  levels.forEach((level, i) => image.data.set([...colour(level), 255 * (0.1 + 0.6 * level)], 4 * i));
  const made = document.createElement("canvas");
  [made.width, made.height] = [columns, rows];
  made.getContext("2d").putImageData(image, 0, 0);
  return made;
}

function colour(level) {
  const place = level * (COLOURS.length - 1);
  const below = Math.min(Math.floor(place), COLOURS.length - 2);
  return COLOURS[below].map((v, c) => v + (place - below) * (COLOURS[below + 1][c] - v));
}

function outline(context, [x0, y0, x1, y1], unit) {
  twice(context, unit, () => context.strokeRect(x0, y0, x1 - x0, y1 - y0));
}

function ring(context, x, y, unit) {
  twice(context, unit, () => {
    context.beginPath();
    context.arc(x, y, 5 * unit, 0, 2 * Math.PI);
    context.stroke();
  });
}

// White with a dark rim: seen on every picture.
function twice(context, unit, stroke) {
  for (const [width, ink] of [[2.6 * unit, "black"], [1.2 * unit, "white"]]) { // prettier-ignore
    context.lineWidth = width;
    context.strokeStyle = ink;
    stroke();
  }
}

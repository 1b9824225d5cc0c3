// Pictures on canvases. What is transparent lies on white, as Python has it.

const [LEAST, MOST] = [480, 2400]; // pixels of the longer side of a canvas that is looked at

// Onto the whole canvas. `source`: anything that can be drawn.
export function paint(canvas, source) {
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
}

// Gives a canvas a picture's shape. `scale`: its pixels for each of the picture's.
export function shape(canvas, { width, height }, scale) {
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
}

// The scale of a canvas on which a picture fills an element of the page.
export function scaleIn({ width, height }, { clientWidth, clientHeight }) {
  const shown = Math.max(clientWidth, clientHeight) * devicePixelRatio;
  return Math.min(Math.max(LEAST, shown), MOST) / Math.max(width, height);
}

// Anything that can be drawn, of the size {width, height}, on a canvas of its own, the longer side `side` at most.
export function canvasOf(source, { width, height }, side = Infinity) {
  const canvas = document.createElement("canvas");
  shape(canvas, { width, height }, Math.min(1, side / Math.max(width, height)));
  paint(canvas, source);
  return canvas;
}

export const filmed = (video, side) => canvasOf(video, { width: video.videoWidth, height: video.videoHeight }, side);

// A picture as it is shown and sent: {name, blobs, bitmap, width, height, note}. A video has several blobs, its frames in turn; what is
// shown, and what coordinates are of, is the first.

import { canvasOf } from "../shared/canvas.js";

const MOST_BYTES = 15 << 20; // what is larger is made smaller before it is sent: the server would refuse it
const MOST_PIXELS = 50e6;
const SIDE = 4096; // pixels of the longer side then
const SENT_AS_IS = ["image/png", "image/jpeg", "image/webp", "image/gif", "image/bmp"]; // what the server opens

export async function openPicture(blob) {
  const bitmap = await open(blob);
  const pixels = bitmap.width * bitmap.height;
  const name = blob.name ?? "picture.png";
  if (blob.size <= MOST_BYTES && pixels <= MOST_PIXELS) {
    if (SENT_AS_IS.includes(blob.type)) return shown(name, [blob], bitmap, "");
    return drawn(name, bitmap, Infinity, "image/png", "");
  }
  const was = `${bitmap.width} × ${bitmap.height} pixels, ${inBytes(blob.size)}`;
  return drawn(name, bitmap, SIDE, "image/jpeg", (now) => `The picture is large (${was}). It is sent smaller: ${now.width} × ${now.height} pixels.`);
}

// Frames, as JPEG or PNG, of a video called `name`.
export const openFrames = async (name, blobs, note) => shown(name, blobs, await open(blobs[0]), note);

// A small copy for a list of pictures.
export async function thumbnail({ bitmap }, side = 160) {
  return encode(canvasOf(bitmap, bitmap, side), "image/jpeg");
}

// As the server is sent it.
export function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Error("The picture cannot be read any more. Choose it again."));
    reader.readAsDataURL(blob);
  });
}

export const encode = (canvas, type) => new Promise((resolve) => canvas.toBlob(resolve, type, 0.92));

async function open(blob) {
  try {
    return await createImageBitmap(blob); // upright, by what its file says
  } catch {
    throw new Error("This is no picture that the browser can open. PNG, JPEG and WebP work everywhere.");
  }
}

const shown = (name, blobs, bitmap, note) => ({ name, blobs, bitmap, width: bitmap.width, height: bitmap.height, note });

async function drawn(name, bitmap, side, type, note) {
  const canvas = canvasOf(bitmap, bitmap, side);
  bitmap.close();
  const blob = await encode(canvas, type);
  return shown(name, [blob], await open(blob), note && note(canvas));
}

const inBytes = (count) => `${(count / 2 ** 20).toFixed(1)} MB`;

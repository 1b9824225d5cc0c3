// A picture's file -> upright RGB bytes, transparent parts on white, colour profiles ignored: as `image.py` opens it.

export const MOST_PIXELS = 64 << 20;

export async function readPicture(blob) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    throw new Error("This is no picture that the browser can open. PNG, JPEG and WebP work everywhere.");
  }
  const { width, height } = bitmap;
  if (width * height > MOST_PIXELS) throw new Error(`The picture has ${width} x ${height} pixels, too many: make it smaller.`);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  const { data } = context.getImageData(0, 0, width, height);
  const rgb = new Uint8Array(width * height * 3);
  for (let i = 0; i < width * height; i++) for (let c = 0; c < 3; c++) rgb[3 * i + c] = data[4 * i + c];
  return { rgb, width, height };
}

// A short video -> a few of its pictures, evenly spread. The browser decodes it; the server is only sent these.

import { filmed } from "../shared/canvas.js";
import { encode, openFrames } from "./picture.js";

const FRAMES = 8;
const SIDE = 1280; // pixels of the longer side at most
const PATIENCE = 20_000; // ms for each picture
const DRAWABLE = 500; // ms that a picture may take from being reached to being drawn; a hidden page is told of none

// `most`: pictures of one prompt that the model takes.
export async function openVideo(file, most = FRAMES) {
  const count = Math.min(most, FRAMES);
  const video = document.createElement("video");
  video.muted = true;
  video.playsInline = true;
  video.preload = "auto";
  const source = URL.createObjectURL(file);
  try {
    const first = pictured(video);
    video.src = source;
    await reached(video, "loadeddata");
    await soon(first);
    const seconds = await duration(video);
    const blobs = [];
    for (let i = 0; i < count; i++) {
      await seek(video, ((i + 0.5) / count) * seconds); // the middles of equal parts
      blobs.push(await encode(filmed(video, SIDE), "image/jpeg"));
    }
    const name = file.name ?? "video.mp4";
    const spread =
      count === 1
        ? "This model looks at one picture: the one in the middle of the video is sent."
        : `${count} pictures of the video are sent, evenly spread over its ${seconds.toFixed(1)} s.`;
    return await openFrames(name, blobs, spread);
  } catch {
    throw new Error("This is no video that the browser can play. MP4 (H.264) and WebM work in most.");
  } finally {
    URL.revokeObjectURL(source);
  }
}

// What was just recorded does not say how long it is before its end was seen.
async function duration(video) {
  if (Number.isFinite(video.duration)) return video.duration;
  await seek(video, Number.MAX_SAFE_INTEGER);
  return Number.isFinite(video.duration) ? video.duration : video.currentTime;
}

// A browser may say "seeked" while what it draws is the picture before.
async function seek(video, seconds) {
  const there = reached(video, "seeked");
  const drawable = pictured(video);
  video.currentTime = seconds;
  await there;
  await soon(drawable);
}

const pictured = (video) => new Promise((resolve) => (video.requestVideoFrameCallback?.(resolve) ?? resolve()));

const soon = (promise) => Promise.race([promise, new Promise((resolve) => setTimeout(resolve, DRAWABLE))]);

function reached(video, event) {
  return new Promise((resolve, reject) => {
    video.addEventListener(event, resolve, { once: true });
    video.addEventListener("error", () => reject(video.error), { once: true });
    setTimeout(reject, PATIENCE);
  });
}

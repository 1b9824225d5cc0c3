// One question until it has its answer: where the server says "later", it is asked again then.

import { ask } from "./api.js";

const TRIES = 6;

// `on`: {text(piece), again(failure), wait(failure, seconds left)}. Resolves with the server's response.
export async function answerTo(task, body, signal, on) {
  for (let tried = 1; ; tried++) {
    try {
      return await ask(task, body, { onText: on.text, signal });
    } catch (failure) {
      if (failure.wait == null || tried === TRIES) throw failure;
      on.again(failure);
      for (let left = Math.max(1, failure.wait); left > 0; left--) {
        on.wait(failure, left);
        await second(signal);
      }
      on.wait(failure, 0);
    }
  }
}

function second(signal) {
  return new Promise((resolve, reject) => {
    const gone = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", gone);
      resolve();
    }, 1000);
    signal.addEventListener("abort", gone, { once: true });
  });
}

// What went wrong, in words that say what to do.

const PATIENCE = 5; // seconds before a question is asked again, where the server does not say

export class Failure extends Error {
  // `status`: of HTTP, or 0. `code`: the server's, or ours. `message`: the server's. `wait`: seconds after which asking again makes sense.
  constructor({ status = 0, code = "", message = "", wait = null }) {
    super(inWords(status, code, message));
    Object.assign(this, { status, code, wait });
  }
}

// Of an answer that is no success: its one JSON body, or whatever a proxy in between has put there.
export async function refusal(response) {
  const body = await response.json().catch(() => null);
  const { code, message } = body?.error ?? {};
  const { status } = response;
  const asked = Number.parseFloat(response.headers.get("Retry-After"));
  const wait = status === 429 || status === 503 ? (asked >= 0 ? Math.ceil(asked) : PATIENCE) : null;
  return new Failure({ status, code, message, wait });
}

export const unreachable = () => new Failure({ code: "unreachable" });
export const broken = () => new Failure({ code: "broken" });

const OURS = {
  unreachable: "The server cannot be reached. Is it running, and are you online? Your question is still here: press Answer to ask again.",
  broken: "The connection was lost before the answer was complete. Press Answer to ask again.",
};

const STATUS = {
  401: "The server does not know this key. Ask whoever runs it.",
  404: "The server does not know this question or model. Load the page again: the server may have been changed.",
  413: "The picture is too large for this server. Choose a smaller one, or crop it.",
  429: "The server has many questions to answer.",
  500: "The server made a mistake of its own. Ask again; if it stays so, tell whoever runs it.",
  503: "The server is not ready: it may still be loading its model.",
  504: "The answer took too long and was given up. Ask for less, or try later.",
};

function inWords(status, code, message) {
  if (OURS[code]) return OURS[code];
  if (code?.startsWith("image_") && status === 400) {
    return `The server cannot use this picture. PNG, JPEG and WebP work everywhere. It says: ${message}`;
  }
  if (STATUS[status]) return status >= 500 || !message ? STATUS[status] : `${STATUS[status]} It says: ${message}`;
  return message ? `The server says: ${message}` : `The server answered ${status} and nothing that this page understands. Ask again later.`;
}

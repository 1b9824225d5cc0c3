// The server's HTTP interface, as far as the page uses it.

import { events } from "./events.js";
import { broken, Failure, refusal, unreachable } from "./failures.js";
import { remember, remembered } from "./settings.js";

const KEY = "paligemma-key"; // in this tab only

const ROOT = new URL("../../", import.meta.url); // of the server: this file is page/app/api.js

export const address = (path) => new URL(path, ROOT).href;
export const key = () => remembered(KEY, "sessionStorage") ?? "";
export const useKey = (text) => remember(KEY, text, "sessionStorage");

// Of each model: {id, tasks, languages: {task: codes}, lengths, notes, ...}.
export async function models() {
  const { data } = await (await call("v1/models")).json();
  return data.map(({ id, paligemma = {} }) => ({ id, ...paligemma }));
}

// Pictures to begin with, none where the server has none.
export async function examples() {
  const found = await (await call("page/examples.json")).json();
  return found.map((one) => ({ ...one, image: address(one.image.replace(/^\//, "")) }));
}

// The index that is searched: how many pictures it holds, and of how many more is known.
export const held = async () => (await call("v1/search")).json();

// One search.
export const found = async (body) => (await call("v1/search", { body: JSON.stringify(body) })).json();

export const fetchBlob = async (url) => (await call(url)).blob();

// One question. `onText` is given each piece of the answer as it comes; `signal` ends it. Resolves with the whole response.
export async function ask(task, body, { onText, signal }) {
  const response = await call(`v1/${task}`, { body: JSON.stringify({ ...body, stream: true }), signal });
  let answer = null;
  try {
    for await (const { event, data } of events(response.body)) {
      if (data === "[DONE]") break;
      const value = JSON.parse(data);
      if (event === "token") onText(value.text);
      else if (event === "result") answer = value;
      else if (event === "error") throw new Failure({ ...value.error, status: 0 });
    }
  } catch (error) {
    if (error instanceof Failure || error.name === "AbortError") throw error;
    throw broken();
  }
  if (!answer) throw broken();
  return answer;
}

async function call(path, { body, signal } = {}) {
  const headers = body ? { "Content-Type": "application/json" } : {};
  if (key()) headers.Authorization = `Bearer ${key()}`;
  let response;
  try {
    response = await fetch(address(path), { method: body ? "POST" : "GET", headers, body, signal });
  } catch (error) {
    throw error.name === "AbortError" ? error : unreachable();
  }
  if (!response.ok) throw await refusal(response);
  return response;
}

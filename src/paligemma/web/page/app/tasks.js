// What to ask the model, and how to read its answer: prompts from web.json, results as plain values.

import { Grammar } from "./grammar.js";
import { box, readNames, readObjects, tidy } from "./objects.js";
import { paste } from "./paste.js";
import { boxScore, calibrated, maskScore, textScore } from "./scores.js";

const fill = (template, fields) => template.replace(/\{(\w+)\}/g, (_, name) => fields[name]);

const PROMPTS = {
  caption: (own, { lang, length }) => fill(own.prompts[length], { lang }),
  answer: (own, { lang, question }) => fill(own.prompt, { lang, question: needed(question, "Type a question.") }),
  detect: (own, { names }, { separator }) => fill(own.prompt, { names: namesOf(names).join(separator) }),
  segment: (own, { names }, { separator }) => fill(own.prompt, { names: namesOf(names).join(separator) }),
  ocr: (own) => own.prompt,
  run: (own, { prompt }) => prompt ?? "",
};

// A question: {prompt, maxTokens, grammar, read(answer, size, network) -> result}. `fields`: what was typed.
export function question(task, fields, facts, tokenizer) {
  const own = facts.tasks[task];
  const asked = { prompt: PROMPTS[task](own, fields, facts.objects), maxTokens: own.max_tokens };
  const masks = task === "segment";
  if (!masks && task !== "detect") return { ...asked, grammar: null, read: (answer) => readText(answer, facts, tokenizer, task) };
  const names = namesOf(fields.names);
  return {
    ...asked,
    grammar: new Grammar(tokenizer, names, masks, facts.objects),
    read: (answer, size, network) => readPlaces(answer, names, masks, facts, tokenizer, size, network),
  };
}

function readText(answer, facts, tokenizer, task) {
  const raw = tokenizer.decode(answer.ids);
  return { text: task === "run" ? raw : raw.trim(), score: calibrated(textScore(answer), facts.calibration.text) };
}

async function readPlaces(answer, names, masks, facts, tokenizer, { width, height }, network) {
  const { objects: how, calibration } = facts;
  const { objects, invalid } = readObjects(answer.ids, tokenizer, names, masks, how);
  const shapes = masks && objects.length ? await network.shapes(objects.map((one) => one.codes)) : [];
  const separates = (id) => tokenizer.decode([id]).includes(how.semicolon);
  const found = objects.map((one, i) => ({
    label: one.label,
    box: box(one.bins, width, height, tokenizer.loc),
    score: masks
      ? calibrated(maskScore(answer, one, separates), calibration.mask)
      : calibrated(boxScore(answer, one, separates), calibration.box),
    mask: masks ? paste(shapes[i], how.mask_side, one.bins, width, height, tokenizer.loc) : null,
  }));
  return { text: tokenizer.decode(answer.ids), objects: found, invalid };
}

function namesOf(names) {
  const found = Array.isArray(names) ? names.map(tidy) : readNames(names ?? "");
  if (!found.length) throw new Error("Say what to look for: for example cat ; dog");
  return found;
}

function needed(text, otherwise) {
  if (!text?.trim()) throw new Error(otherwise);
  return text.trim();
}

// What can be asked: in plain words, with which fields, and as which request.

import { languageName } from "../shared/choices.js";

const choices = (text) => [...new Set(text.split(";").map(tidy).filter(Boolean))];
const tidy = (text) => text.split(/\s+/).filter(Boolean).join(" ");
const remarks = ({ length = "normal", lang = "en" }) => {
  const unusual = [length === "normal" ? "" : length, lang === "en" ? "" : languageName(lang)].filter(Boolean);
  return unusual.length ? ` (${unusual.join(", ")})` : "";
};

// Name -> {words, hint, fields, body(fields) -> the request's fields, title(fields) -> what was asked}. `more`: not offered at first.
export const TASKS = {
  caption: {
    words: "What is in this picture?",
    hint: "The picture in a sentence.",
    fields: ["lang", "length"],
    body: ({ lang, length }) => ({ lang, length }),
    title: (fields) => `What is in this picture?${remarks(fields)}`,
  },
  detect: {
    words: "Find …",
    hint: "Boxes around everything that has one of these names.",
    fields: ["names"],
    body: ({ names }) => ({ classes: needed(choices(names), "names", "Say what to find: for example cat ; dog") }),
    title: ({ names }) => `Find: ${choices(names).join(", ")}`,
  },
  segment: {
    words: "Outline …",
    hint: "The outline of what you name: a word or a few.",
    fields: ["names"],
    body: ({ names }) => ({ classes: needed(choices(names), "names", "Say what to outline: for example cat ; dog"), masks: "rle" }),
    title: ({ names }) => `Outline: ${choices(names).join(", ")}`,
  },
  ocr: {
    words: "Read the text",
    hint: "All text in the picture.",
    fields: [],
    body: () => ({}),
    title: () => "Read the text",
  },
  ask: {
    words: "Ask …",
    hint: "A question about the picture, in English.",
    fields: ["question", "lang", "choices"],
    body: ({ question, lang, choices: text }) => ({
      question: needed(tidy(question), "question", "Type a question."),
      lang,
      ...(choices(text).length ? { choices: choices(text) } : {}),
    }),
    title: (fields) => `${tidy(fields.question)}${remarks(fields)}`,
  },
  "describe-box": {
    more: true,
    words: "What is in this box?",
    hint: "Draw a box on the picture, or type its edges in pixels.",
    fields: ["left", "top", "right", "bottom"],
    body: (fields) => ({ box: edges(fields) }),
    title: (fields) => `What is in the box ${edges(fields).join(", ")}?`,
  },
  refer: {
    more: true,
    words: "Outline the one that …",
    hint: "One thing, said in a sentence. For models that were trained on it.",
    fields: ["sentence"],
    body: ({ sentence }) => ({ sentence: needed(tidy(sentence), "sentence", "Say which one: for example the dog on the left"), masks: "rle" }),
    title: ({ sentence }) => `Outline: ${tidy(sentence)}`,
  },
  question: {
    more: true,
    words: "Which question has this answer?",
    hint: "A question about the picture that is answered so.",
    fields: ["answer", "lang"],
    body: ({ answer, lang }) => ({ answer: needed(tidy(answer), "answer", "Type an answer: for example two"), lang }),
    title: (fields) => `Which question has the answer “${tidy(fields.answer)}”?${remarks(fields)}`,
  },
  run: {
    more: true,
    words: "Any prompt",
    hint: "Exactly as the model was trained on it.",
    fields: ["prompt"],
    body: ({ prompt }) => ({ prompt: needed(prompt, "prompt", "Type a prompt: for example caption en") }),
    title: ({ prompt }) => `Prompt: ${prompt}`,
  },
};

// Something is missing in the form. `field`: its name.
export class Missing extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

function needed(value, field, otherwise) {
  if (!value.length) throw new Missing(field, otherwise);
  return value;
}

function edges({ left, top, right, bottom }) {
  const box = [left, top, right, bottom].map(Number);
  if (!(box[0] < box[2])) throw new Missing("right", "The right edge must lie to the right of the left one.");
  if (!(box[1] < box[3])) throw new Missing("bottom", "The bottom edge must lie below the top one.");
  return box;
}

// The form: which task was chosen, and what was typed.

import { fill, fillLanguages } from "../shared/choices.js";
import { element, h } from "../shared/elements.js";
import { TASKS } from "./tasks.js";

const form = element("form");

let model = null; // the chosen one, as the server describes it

export const field = (name) => form.elements.namedItem(name);
export const task = () => form.querySelector('[name="task"]:checked').value;
export const typed = () => Object.fromEntries(TASKS[task()].fields.map((name) => [name, field(name).value]));

// `onTask`: another one was chosen.
export function makeTasks(onTask) {
  for (const [name, { words, more }] of Object.entries(TASKS)) {
    const onchange = () => {
      showTask();
      onTask();
    };
    const radio = h("input", { type: "radio", name: "task", value: name, onchange });
    element(more ? "more-tasks" : "tasks").append(h("label", {}, radio, h("span", {}, words)));
  }
  form.querySelector('[name="task"]').checked = true;
  showTask();
}

function showTask() {
  const { hint, fields } = TASKS[task()];
  element("task-hint").textContent = hint;
  for (const label of form.querySelectorAll("[data-field]")) label.hidden = !fields.includes(label.dataset.field);
  if (fields.includes("length")) fill(field("length"), (model?.lengths ?? ["normal"]).map((length) => [length, length]), "normal");
  if (fields.includes("lang")) fillLanguages(field("lang"), model?.languages?.[task()] ?? ["en"]);
}

// Of one prompt.
export const mostPictures = () => model?.limits?.images;

// Only what the chosen model was trained on is offered, where the server says what that is.
export function offer(models) {
  field("model").replaceChildren(...models.map((one) => new Option(one.id)));
  element("model-field").hidden = models.length < 2;
  field("model").onchange = () => {
    model = models.find((one) => one.id === field("model").value) ?? null;
    showAbilities();
  };
  field("model").onchange();
}

function showAbilities() {
  const able = (name) => !model?.tasks?.length || model.tasks.includes(name);
  for (const radio of form.querySelectorAll('[name="task"]')) radio.parentElement.hidden = !able(radio.value);
  const some = (place) => element(place).querySelector("label:not([hidden])") !== null;
  element("more").hidden = !some("more-tasks");
  if (!some("tasks")) element("more").open = true;
  if (able(task())) showTask();
  else form.querySelector('label:not([hidden]) > [name="task"]').click();
}

// What is asked first of an example.
export function suggest(example) {
  const texts = { question: example.ask, names: example[task()]?.join?.(" ; ") };
  for (const [name, text] of Object.entries(texts)) if (text) field(name).value = text;
}

// The field that an error is about.
export function blame(name) {
  field(name).setAttribute("aria-invalid", "true");
  field(name).setAttribute("aria-describedby", "error");
  field(name).focus();
}

export function blameNone() {
  for (const one of form.querySelectorAll("[aria-invalid]")) {
    one.removeAttribute("aria-invalid");
    one.removeAttribute("aria-describedby");
  }
}

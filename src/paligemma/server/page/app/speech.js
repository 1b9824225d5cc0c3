// Reading aloud, by the browser's own voices.

import { remember, remembered } from "./settings.js";

const AUTOMATIC = "paligemma-aloud";
const speech = globalThis.speechSynthesis;

export const canSpeak = Boolean(speech);
export const automatic = () => remembered(AUTOMATIC) === "on";
export const setAutomatic = (on) => remember(AUTOMATIC, on ? "on" : "off");

// What is being read is broken off. `lang`: a code such as "de", or "" where nobody knows.
export function speak(text, lang) {
  speech.cancel();
  const said = new SpeechSynthesisUtterance(text);
  if (lang) said.lang = lang;
  speech.speak(said);
}

export const hush = () => speech?.cancel();

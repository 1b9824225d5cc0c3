// Lists to choose from.

// `choices`: [words, value] each. What was chosen stays, where it is still offered; else `otherwise`.
export function fill(select, choices, otherwise) {
  const chosen = choices.some(([, value]) => value === select.value) ? select.value : otherwise;
  select.replaceChildren(...choices.map(([words, value]) => new Option(words, value, value === chosen, value === chosen)));
}

export const fillLanguages = (select, codes) => fill(select, inWords(codes), "en");

export const languageName = (code) => new Intl.DisplayNames(["en"], { type: "language", fallback: "code" }).of(code) ?? code;

const inWords = (codes) => codes.map((code) => [languageName(code), code]).sort(([a], [b]) => a.localeCompare(b));

// Making elements. Text is only ever text: what a model wrote is never read as HTML.

export const element = (id) => document.getElementById(id);

// h("button", { type: "button", onclick: go }, "Go"): attributes, listeners, children. What is null or false is left out.
export function h(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child != null && child !== false));
  return made;
}

export const button = (text, onclick, more = {}) => h("button", { type: "button", onclick, ...more }, text);

// One stop of the Tab key for a group of buttons; arrows, Home and End go on from there.
export function rove(group) {
  const buttons = [...group.querySelectorAll("button[data-at]")];
  buttons.forEach((one, i) => (one.tabIndex = i ? -1 : 0));
  group.onkeydown = (event) => {
    const at = buttons.indexOf(document.activeElement);
    const steps = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 };
    if (at < 0 || !(event.key in steps)) return;
    event.preventDefault();
    const next = buttons[(steps[event.key] + buttons.length) % buttons.length];
    for (const one of buttons) one.tabIndex = one === next ? 0 : -1;
    next.focus();
  };
}

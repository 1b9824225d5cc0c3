// Small settings. Some browsers let a page keep nothing: then they last until it is left.

const here = new Map();

export function remembered(name, store = "localStorage") {
  try {
    return window[store].getItem(name);
  } catch {
    return here.get(name) ?? null;
  }
}

export function remember(name, value, store = "localStorage") {
  here.set(name, value);
  try {
    window[store].setItem(name, value);
  } catch {} // see above
}

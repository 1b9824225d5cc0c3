// Ids of an answer -> the objects in it, as `tasks/detect.py` reads them: four locations, perhaps 16 codes, a label, a separator.

// {objects: [{label, bins: [y0, x0, y1, x1], codes | null, start, labelStart, end}], invalid}: places are positions in `ids`.
// names: only objects of these labels count, spelled as asked. masks: objects without codes do not count. facts: "objects" of web.json.
export function readObjects(ids, tokenizer, names, masks, facts) {
  const kind = (id) => {
    if (tokenizer.isLocation(id)) return "loc";
    if (tokenizer.isCode(id)) return "seg";
    return tokenizer.decode([id]).includes(facts.semicolon) ? "end" : "text";
  };
  const kinds = ids.map(kind);
  const objects = [];
  let invalid = 0;
  let at = 0;
  const run = (wanted, most) => {
    const start = at;
    while (at < ids.length && kinds[at] === wanted && at - start < most) at++;
    return ids.slice(start, at);
  };
  while (at < ids.length && objects.length < facts.most_read) {
    const start = at;
    const bins = run("loc", 4).map((id) => id - tokenizer.loc[0]);
    if (!bins.length) {
      at++;
      continue;
    }
    if (bins.length < 4) {
      invalid++;
      continue;
    }
    const codes = run("seg", Infinity).map((id) => id - tokenizer.seg[0]);
    let labelStart = at;
    const label = tidy(tokenizer.decode(run("text", Infinity)));
    let end = at;
    if (!label) labelStart = end = start + 4 + codes.length;
    if (kinds[at] === "end") at++;
    const [y0, x0, y1, x1] = bins;
    if (y1 <= y0 || x1 <= x0) invalid++;
    else objects.push({ label, bins, codes: codes.length >= facts.codes ? codes.slice(0, facts.codes) : null, start, labelStart, end });
  }
  const asked = new Map([...names].reverse().map((name) => [tidy(name).toLowerCase(), name]));
  if (asked.size === 1) asked.set("", names[0]);
  const named = objects.map((one) => ({ ...one, label: asked.get(one.label.toLowerCase()) }));
  const wanted = named.filter((one) => one.label !== undefined);
  const whole = masks ? wanted.filter((one) => one.codes) : wanted;
  return { objects: whole, invalid: invalid + wanted.length - whole.length };
}

// One blank between words, none around.
export const tidy = (text) => text.split(/\s+/).filter(Boolean).join(" ");

// Names out of what was typed, with ";" between, none twice.
export const readNames = (text) => [...new Set(text.split(";").map(tidy).filter(Boolean))];

// Left, top, right, bottom in pixels.
export function box(bins, width, height, loc) {
  const [y0, x0, y1, x1] = bins.map((bin) => bin / (loc[1] - loc[0] - 1));
  return [x0 * width, y0 * height, x1 * width, y1 * height];
}

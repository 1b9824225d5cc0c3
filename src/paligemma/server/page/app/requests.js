// A question as somebody would write it in a terminal or a program. The picture is a file there; in the request itself it is shortened.

const LEADING = ["classes", "question", "sentence", "box", "answer", "prompt"]; // what a verb takes without a name

// {name -> text}. `body`: the request's fields without pictures. `picture`: its name and its blobs, several of a video. `server`: its address.
export function asPrograms(task, body, { name, blobs }, server, hasKey) {
  const url = `${server.replace(/\/$/, "")}/v1/${task}`;
  const files = blobs.length === 1 ? [name] : blobs.map((_, i) => `frame${i + 1}.jpg`);
  const key = hasKey ? "Authorization: Bearer YOUR_KEY\n" : "";
  return {
    curl: curl(url, body, files, hasKey),
    "Python, with paligemma": withClient(task, body, name, blobs.length, server, hasKey),
    "Python, with requests": withRequests(url, body, files, hasKey),
    "The request": `POST ${url}\nContent-Type: application/json\n${key}\n${JSON.stringify(shortened(body, files), null, 2)}`,
  };
}

function curl(url, body, files, hasKey) {
  const pictures = files.map((file) => `-F ${shell(`image=@${/[;,"\\]/.test(file) ? JSON.stringify(file) : file}`)}`);
  const fields = Object.entries(body).map(([name, value]) => `--form-string ${shell(`${name}=${plain(name, value)}`)}`); // -F would read @ and ;
  return [`curl ${shell(url)}`, ...(hasKey ? ["-H 'Authorization: Bearer YOUR_KEY'"] : []), ...pictures, ...fields].join(" \\\n  ");
}

function withClient(task, body, name, count, server, hasKey) {
  const { masks, model, ...asked } = body; // masks come as masks; the model is the client's
  const values = Object.entries(asked).map(([field, value]) => (LEADING.includes(field) ? python(value) : `${field}=${python(value)}`));
  const picture = count === 1 ? python(name) : `Clip(tuple(sample_frames(${python(name)}, ${count})))`;
  return [
    "import paligemma",
    ...(count === 1 ? [] : ["from paligemma.image import Clip", "from paligemma.video import sample_frames"]),
    "",
    `model = paligemma.connect(${python(server)}${hasKey ? ', api_key="YOUR_KEY"' : ""}${model ? `, model=${python(model)}` : ""})`,
    `result = model.${task.replace("-", "_")}(${[picture, ...values].join(", ")})`,
    "print(result.to_json())",
  ].join("\n");
}

function withRequests(url, body, files, hasKey) {
  const picture = (file) => `picture(${python(file)})`;
  const given = files.length === 1 ? `"image": ${picture(files[0])}` : `"images": [${files.map(picture).join(", ")}]`;
  const fields = [given, ...Object.entries(body).map(([name, value]) => `"${name}": ${python(value)}`)];
  return [
    "import base64",
    "from pathlib import Path",
    "",
    "import requests",
    "",
    "",
    "def picture(path):",
    "    return base64.b64encode(Path(path).read_bytes()).decode()",
    "",
    "",
    "response = requests.post(",
    `    ${python(url)},`,
    ...(hasKey ? ['    headers={"Authorization": "Bearer YOUR_KEY"},'] : []),
    "    json={",
    ...fields.map((one) => `        ${one},`),
    "    },",
    "    timeout=300,",
    ")",
    "response.raise_for_status()",
    'print(response.json()["result"])',
  ].join("\n");
}

function shortened(body, files) {
  const short = "data:...;base64,...";
  return { ...(files.length === 1 ? { image: `${short} (${files[0]})` } : { images: files.map((file) => `${short} (${file})`) }), ...body };
}

// In a form names are one text with ";" between them, other lists their JSON.
const plain = (name, value) => (name === "classes" ? value.join(" ; ") : Array.isArray(value) ? JSON.stringify(value) : String(value));
const shell = (text) => (/^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

// JSON's texts, numbers and lists are Python's as well.
function python(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  return Array.isArray(value) ? `[${value.map(python).join(", ")}]` : JSON.stringify(value);
}

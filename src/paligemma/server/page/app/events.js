// Server-sent events out of a response's body, one by one as they arrive.

// Yields {event, data}; an event without a name is a "message". Comments, with which a server says that it is still there, are skipped.
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let name = "message";
  let data = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return; // what has no empty line behind it is not whole
      const lines = (rest + decoder.decode(value, { stream: true })).split(/\r?\n/);
      rest = lines.pop();
      for (const line of lines) {
        if (!line) {
          if (data.length) yield { event: name, data: data.join("\n") };
          [name, data] = ["message", []];
          continue;
        }
        const [, field, text] = /^([^:]*):? ?(.*)$/s.exec(line);
        if (field === "event") name = text;
        else if (field === "data") data.push(text);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

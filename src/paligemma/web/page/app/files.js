// The model's files, fetched once: afterwards they lie in the browser's own store (Cache API). Each is named with its digest, so that a new
// model never meets an old file. Without a store, as on an address that is not secure, they are fetched each time.

const STORE = "paligemma";

// All files that the page needs of a model: [{path, bytes, sha256}].
export function listed(facts) {
  return [facts.vocabulary, ...Object.values(facts.graphs).flatMap(({ graph, data }) => [graph, ...data])];
}

export const totalBytes = (facts) => listed(facts).reduce((sum, file) => sum + file.bytes, 0);

const address = (folder, file) => `${new URL(file.path, folder)}?${file.sha256.slice(0, 16)}`;

const openStore = () => (globalThis.caches ? caches.open(STORE).catch(() => null) : Promise.resolve(null));

// Whether nothing has to be fetched.
export async function areStored(facts, folder) {
  const store = await openStore();
  if (!store) return false;
  const found = await Promise.all(listed(facts).map((file) => store.match(address(folder, file))));
  return found.every(Boolean);
}

// name -> Blob, or what serves as one, of all files. onProgress(done, total) in bytes. Throws an error in words where a file cannot be had.
export async function fetchAll(facts, folder, onProgress) {
  const store = await openStore();
  const total = totalBytes(facts);
  const files = new Map();
  let done = 0;
  for (const file of listed(facts)) {
    const before = done;
    const blob = await fetchOne(store, address(folder, file), file, (bytes) => onProgress(before + bytes, total));
    if (blob.size !== file.bytes) {
      await store?.delete(address(folder, file));
      throw new Error(`${file.path} has ${blob.size} bytes, expected ${file.bytes}. Load the page again, or pack the model again.`);
    }
    files.set(file.path, blob);
    done += file.bytes;
    onProgress(done, total);
  }
  await store?.keys().then((keys) => forgetOld(store, keys, folder, facts));
  return files;
}

async function fetchOne(store, url, file, onBytes) {
  const stored = await store?.match(url);
  if (stored) return stored.blob();
  const counted = async () => {
    const response = await fetch(url, { cache: "no-store" }).catch(() => null);
    if (!response?.ok) {
      throw new Error(`${file.path} cannot be fetched${response ? ` (${response.status})` : ""}. Is the server still running?`);
    }
    let bytes = 0;
    const count = new TransformStream({
      transform(chunk, controller) {
        bytes += chunk.byteLength;
        onBytes(bytes);
        controller.enqueue(chunk);
      },
    });
    return new Response(response.body.pipeThrough(count));
  };
  if (store) {
    const response = await counted();
    const kept = await store.put(url, response).then(() => store.match(url)).catch(() => null);
    if (kept) return kept.blob();
    await store.delete(url); // no room, or none for a file so large: it is held in memory, and fetched again next time
  }
  return Held.read(await counted(), file.bytes);
}

// What is needed of a Blob, in memory: a private window may wait for ever for a large Blob.
class Held {
  constructor(bytes) {
    this.bytes = bytes;
    this.size = bytes.length;
  }

  static async read(response, size) {
    const bytes = new Uint8Array(size);
    let at = 0;
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) return new Held(bytes.subarray(0, at));
      bytes.set(value.subarray(0, size - at), at);
      at = Math.min(size, at + value.length);
    }
  }

  slice(start, end) {
    return new Held(this.bytes.subarray(start, end));
  }

  async arrayBuffer() {
    return this.bytes.slice().buffer;
  }

  async text() {
    return new TextDecoder().decode(this.bytes);
  }
}

// All of a file, not copied where it is in memory.
export async function bytesOf(file) {
  return file instanceof Held ? file.bytes : new Uint8Array(await file.arrayBuffer());
}

// Files of this folder that the model no longer has.
async function forgetOld(store, keys, folder, facts) {
  const wanted = new Set(listed(facts).map((file) => address(folder, file)));
  await Promise.all(keys.filter(({ url }) => url.startsWith(folder) && !wanted.has(url)).map((key) => store.delete(key)));
}

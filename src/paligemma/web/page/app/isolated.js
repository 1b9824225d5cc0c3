// Threads in WebAssembly need a page that is isolated from others, by headers. Where the server does not send them a service worker adds
// them, from the second loading on: so the page loads itself once more on the first visit.

const TRIED = "paligemma-isolated";
const PATIENCE = 10_000; // milliseconds for the service worker to be ready

// True where the page is about to be loaded again.
export async function isolate() {
  const possible = globalThis.isSecureContext && navigator.serviceWorker && navigator.hardwareConcurrency > 1;
  if (globalThis.crossOriginIsolated || !possible || sessionStorage.getItem(TRIED)) return false;
  try {
    await navigator.serviceWorker.register("isolate.js");
  } catch {
    return false;
  }
  const late = new Promise((resolve) => setTimeout(resolve, PATIENCE));
  const ready = await Promise.race([navigator.serviceWorker.ready, late]);
  sessionStorage.setItem(TRIED, "yes"); // once: where it does not help, one thread will do
  if (!ready) return false;
  location.reload();
  return true;
}

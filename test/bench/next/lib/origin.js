// What stands behind the pages: it can be made slow or failing, and counts what
// it is asked for. Pages and API routes are bundled apart, but run in one process.
const state = (globalThis.origin ??= { delay: 0, mode: "ok", renders: {} });

export function set({ delay, mode }) {
  state.delay = milliseconds(delay);
  state.mode = mode;
}

export const renders = (segment) => state.renders[segment] ?? 0;

export async function read(segment, id) {
  state.renders[segment] = renders(segment) + 1;
  if (state.delay > 0) await new Promise((resolve) => setTimeout(resolve, state.delay));
  if (state.mode === "fail") throw new Error("the database is down");
  return { segment, id };
}

// milliseconds understands what Go's time.Duration writes.
function milliseconds(text) {
  const units = { h: 3600e3, m: 60e3, s: 1e3, ms: 1, "µs": 1e-3, ns: 1e-6 };
  let sum = 0;
  for (const [, n, unit] of text.matchAll(/([0-9.]+)(h|ms|m|s|µs|ns)/g)) sum += n * units[unit];
  return sum;
}

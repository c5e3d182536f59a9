// Requests to the service. Addresses are relative, so that they hold behind a proxy's prefix too.

const LOST = "The service cannot be reached. It has stopped, or the connection was lost.";
const PHOTO = "application/octet-stream";
const TRIES = 5;
const STARTING_TRIES = 40; // a start takes seconds, or a minute where a GPU warms up
const MOST_WAIT_S = 30;

/** The key of this tab: it outlives a reload, and no longer than the tab. */
export const key = {
  name: "breedcam-api-key",
  memory: null,
  get value() {
    try { return sessionStorage.getItem(this.name); } catch { return this.memory; } // no cookies
  },
  set value(text) {
    this.memory = text;
    try {
      if (text) sessionStorage.setItem(this.name, text);
      else sessionStorage.removeItem(this.name);
    } catch { /* `memory` has it */ }
  },
};

/** What a request came to, in words for people. */
export class Refusal extends Error {
  /** `code` is the end of the problem's type; `wait` the seconds to wait before another try. */
  constructor(message, { status = 0, code = "", wait = null, key: used = null } = {}) {
    super(message);
    Object.assign(this, { status, code, wait, key: used });
  }

  get locked() { return this.status === 401; }

  /** There was no answer, or half of one. */
  get lost() { return this.status === 0; }

  get starting() { return this.status === 503 && this.code === "not-ready"; }

  get busy() { return [429, 503].includes(this.status) && this.code !== "engine-down"; }

  /** The same question gets the same answer. */
  get final() { return this.status >= 400 && this.status < 500 && this.status !== 429; }
}

/**
 * One request; resolves to the answer's JSON (null where it has none), rejects with a `Refusal` or, once `signal` is
 * aborted, an `AbortError`. `progress` is called with the share of the body that has been sent.
 *
 * XMLHttpRequest, since fetch reports nothing of an upload.
 */
export function request(address, { body = null, type = PHOTO, signal, progress } = {}) {
  const used = key.value;
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.open(body ? "POST" : "GET", address);
    call.setRequestHeader("Accept", "application/json");
    if (body) call.setRequestHeader("Content-Type", type);
    if (used) call.setRequestHeader("Authorization", `Bearer ${used}`);
    const abort = () => call.abort();
    signal?.addEventListener("abort", abort);
    call.upload.onprogress = ({ loaded, total }) => progress?.(total ? loaded / total : 1);
    call.onloadend = () => {
      signal?.removeEventListener("abort", abort);
      if (signal?.aborted) reject(new DOMException("Aborted", "AbortError"));
      else settle(call, used, resolve, reject);
    };
    if (signal?.aborted) reject(new DOMException("Aborted", "AbortError"));
    else call.send(body);
  });
}

function settle(call, used, resolve, reject) {
  const { status } = call;
  if (!status) return reject(new Refusal(LOST));
  if (status === 204) return resolve(null);
  const type = call.getResponseHeader("Content-Type") ?? "";
  let answer = null;
  try { answer = JSON.parse(call.responseText); } catch { /* a proxy's page, or half an answer */ }
  if (status < 300) return answer ? resolve(answer) : reject(new Refusal(LOST));
  const told = type.startsWith("application/problem+json") && answer;
  const message = told ? answer.detail : `The service answered ${status} ${call.statusText}.`;
  const code = told ? answer.type.split(":").pop() : "";
  const header = call.getResponseHeader("Retry-After");
  const seconds = header === null ? NaN : Number(header);
  const wait = Number.isFinite(seconds) ? Math.min(Math.max(seconds, 1), MOST_WAIT_S) : null;
  return reject(new Refusal(message, { status, code, wait, key: used }));
}

/**
 * `request`, tried again while the service is busy or starting. Before another try,
 * `waiting(refusal, seconds)` is called for each second that is left.
 */
export async function patiently(address, { waiting, ...options }) {
  for (let tries = 1; ; tries += 1) {
    try {
      return await request(address, options);
    } catch (refusal) {
      const most = refusal.starting ? STARTING_TRIES : TRIES;
      if (!refusal.busy || tries >= most) throw refusal;
      for (let left = refusal.wait ?? Math.min(tries, 5); left > 0; left -= 1) {
        waiting(refusal, left);
        await pause(1000, options.signal);
      }
    }
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(new DOMException("Aborted", "AbortError"));
    }, { once: true });
  });
}

/** Whether the API's documentation is served: it can be turned off. */
export async function hasDocs() {
  const response = await fetch("docs", { method: "HEAD" }).catch(() => null);
  return response !== null && response.status !== 404;
}

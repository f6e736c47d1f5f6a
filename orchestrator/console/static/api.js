// What the page says to the console's server. Each request carries the login's second secret, see sessions.py.

const SECRET = "cellblock-csrf";
const FIRST_PAUSE = 300; // milliseconds until a stream that broke is opened again, doubled each time
const LONGEST_PAUSE = 5000;
const NOBODY = new Set(["UNAVAILABLE", "DEADLINE_EXCEEDED"]); // gRPC's own words: the service itself has not answered

/** Why there is no answer, or which one; `isUnanswered` if nobody has given any: then the same may be asked again. */
export class ApiError extends Error {
  constructor(status, told) {
    super(told?.message || (status ? `the console answered ${status}` : "the service cannot be reached"));
    this.isUnanswered = !status || (status === 503 && !told) || NOBODY.has(told?.error);
  }
}

const FAILED = 502; // of a stream, whose status was said before it failed
let onLogout = () => {};
/** Whom to tell that nobody is logged in any more. */
export const whenLoggedOut = (tell) => { onLogout = tell; };
export const hasLogin = () => Boolean(localStorage.getItem(SECRET));

export async function login(body) {
  const { csrf } = await post("/login", body);
  localStorage.setItem(SECRET, csrf);
}

export async function logout() {
  try {
    await post("/logout");
  } finally {
    forget();
  }
}

function forget() {
  localStorage.removeItem(SECRET);
  onLogout();
}

export const get = (path) => ask("GET", path);
export const post = (path, body = {}) => ask("POST", path, body);

/** A name for one request: what comes again with it is not done again. */
const newKey = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/**
 * Sends bodies to a path, each with a key of its own. One that nobody answered has the same key when it is sent again,
 * so that it is done once, whether it had arrived or not.
 */
export function sender(path) {
  let key = "";
  let unanswered = "";
  return async (body = {}) => {
    const text = JSON.stringify(body);
    if (text !== unanswered) key = newKey();
    unanswered = "";
    try {
      return await post(path, { ...body, key });
    } catch (error) {
      if (error.isUnanswered) unanswered = text;
      throw error;
    }
  };
}

async function ask(method, path, body) {
  return (await opened(method, path, body)).json();
}

async function opened(method, path, body, more = {}, signal = undefined) {
  const headers = { "x-cellblock-csrf": localStorage.getItem(SECRET) || "", ...more };
  if (body !== undefined) headers["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: body === undefined ? undefined : JSON.stringify(body), redirect: "error" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(0);
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  if (response.status === 401 && path !== "/login") forget();
  throw new ApiError(response.status, told);
}

/**
 * The events of a stream, none lost and none twice, however often the connection is. Gives what the end says.
 *
 * With a body it is a POST: an execution, which has a key and so is begun once. What was answered is not asked again.
 */
export async function follow(path, { body, signal, after = 0, onEvent, onState = () => {} }) {
  const key = newKey();
  let pause = FIRST_PAUSE;
  for (;;) {
    try {
      const request = body && { ...body, key, after };
      const more = after ? { "last-event-id": String(after) } : {};
      const response = await opened(body ? "POST" : "GET", path, request, more, signal);
      onState("live");
      for await (const { kind, data } of lines(response)) {
        pause = FIRST_PAUSE;
        if (kind === "end") return data;
        if (kind === "failed") throw new ApiError(FAILED, data);
        after = data.number;
        onEvent(data.event, data.time);
      }
    } catch (error) {
      if (signal?.aborted) return null;
      if (error instanceof ApiError && !error.isUnanswered) throw error;
    }
    onState("lost");
    await new Promise((resolve) => setTimeout(resolve, pause));
    if (signal?.aborted) return null;
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  }
}

const AT_ONCE = 60; // milliseconds of events that are shown before the browser may do something else

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let since = performance.now();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const fields = Object.fromEntries(part.split("\n").map((line) => [line.slice(0, line.indexOf(": ")), line.slice(line.indexOf(": ") + 2)]));
      if (!fields.data) continue;
      yield { kind: fields.event, data: JSON.parse(fields.data) };
      if (performance.now() - since < AT_ONCE) continue;
      await new Promise((resolve) => setTimeout(resolve));
      since = performance.now();
    }
  }
}

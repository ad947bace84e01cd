// Asking left.

/// What left says when it can not do something: what, why, and what to do.
export class Refusal extends Error {
  constructor(error) {
    const text = [`${error.what}: ${error.why}`, error.todo].filter(Boolean).join("; ");
    super(`${text.charAt(0).toUpperCase()}${text.slice(1)}.`);
    this.todo = error.todo;
  }
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("left does not answer; see whether it still runs");
  }
  if (response.status === 401) {
    // Left was started anew: this browser has to enter again.
    location.reload();
    return new Promise(() => {});
  }
  if (!response.ok) {
    throw new Refusal(await response.json().catch(() => ({ what: "cannot do this", why: `status ${response.status}`, todo: "" })));
  }
  return response;
}

const query = (values) => {
  const kept = Object.entries(values).filter(([, v]) => v !== null && v !== undefined && v !== "");
  return kept.length ? `?${new URLSearchParams(kept)}` : "";
};

export const link = (path, values = {}) => path + query(values);
export const get = async (path, values = {}) => (await ask(link(path, values))).json();
export const text = async (path, values = {}) => {
  const response = await ask(link(path, values));
  return { text: await response.text(), kind: response.headers.get("content-type") ?? "" };
};
export const post = async (path, body = {}) => (await ask(path, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body),
})).json();

/// Follows what happens; `on.status`, `on.activity`, `on.gone`. It connects again by itself.
export function follow(on) {
  const source = new EventSource("/v1/live");
  source.addEventListener("status", (e) => on.status(JSON.parse(e.data)));
  source.addEventListener("activity", () => on.activity());
  source.addEventListener("error", async () => {
    on.gone();
    if (source.readyState !== EventSource.CLOSED) return;
    // Refused for good: most likely left was started anew and knows no cookie.
    setTimeout(() => fetch("/v1/status").then((r) => r.status === 401 ? location.reload() : follow(on), () => follow(on)), 2000);
  });
}

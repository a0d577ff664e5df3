// The only place that talks to the server: the key, errors as sentences, and streams of events.
import { signal } from "@preact/signals";
import { createParser } from "eventsource-parser";
import { persisted } from "./persisted";
import type { ErrorObject } from "./wire";

/** Empty where the browser sends the key by itself (as a password), or where the server has none. */
export const apiKey = persisted("key", "");

/** Set when the server wants another key; the page then asks for one. */
export const keyProblem = signal<string | null>(null);

export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string | null,
    readonly retryAfterS: number | null,
  ) {
    super(message);
  }
}

export interface Call {
  method?: string;
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** The response if it is a success; else an ApiError, with status 0 where the server cannot be reached. */
export async function call(path: string, options: Call = {}): Promise<Response> {
  const headers: Record<string, string> = { ...options.headers };
  if (apiKey.value) headers["authorization"] = `Bearer ${apiKey.value}`;
  const init: RequestInit = { method: options.method ?? "GET", headers };
  if (options.signal) init.signal = options.signal;
  if (options.body !== undefined) {
    headers["content-type"] = "application/json";
    init.body = typeof options.body === "string" ? options.body : JSON.stringify(options.body);
  }
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError("The server cannot be reached.", 0, null, null);
  }
  if (response.ok) return response;
  const body = (await response.json().catch(() => null)) as { error?: ErrorObject } | null;
  const message = body?.error?.message ?? `The server answered ${response.status}.`;
  if (response.status === 401) keyProblem.value = message;
  const retryAfter = response.headers.get("retry-after");
  throw new ApiError(message, response.status, body?.error?.code ?? null, retryAfter ? Number(retryAfter) : null);
}

export async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await call(path, signal ? { signal } : {});
  return (await response.json()) as T;
}

export async function sendJson<T>(method: string, path: string, body?: unknown): Promise<T> {
  const response = await call(path, { method, body });
  return (await response.json()) as T;
}

/** The data of every event until the stream ends; comments, heartbeats and the closing [DONE] are dropped. */
export async function* readEvents<T>(response: Response): AsyncGenerator<T> {
  if (!response.body) return;
  const ready: string[] = [];
  const parser = createParser({ onEvent: (event) => ready.push(event.data) });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      parser.feed(value);
      for (const data of ready.splice(0)) if (data !== "[DONE]") yield JSON.parse(data) as T;
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}

export function isAborted(error: unknown): boolean {
  return error instanceof DOMException && error.name === "AbortError";
}

/** A sentence for people. */
export function told(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

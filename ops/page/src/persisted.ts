// Signals that outlive the page in localStorage. Where the browser forbids it they last as long as the page.
import { type Signal, effect, signal } from "@preact/signals";

const PREFIX = "quire-";

export function load<T>(name: string, fallback: T): T {
  try {
    const text = localStorage.getItem(PREFIX + name);
    return text === null ? fallback : (JSON.parse(text) as T);
  } catch {
    return fallback;
  }
}

export function save(name: string, value: unknown): void {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // Private mode, or full: what was asked for holds for this page.
  }
}

export function forget(name: string): void {
  try {
    localStorage.removeItem(PREFIX + name);
  } catch {
    // As above.
  }
}

export function persisted<T>(name: string, fallback: T): Signal<T> {
  const value = signal(load(name, fallback));
  effect(() => save(name, value.value));
  return value;
}

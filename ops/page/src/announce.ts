// What a screen reader is told: one polite region, so that a stream is heard once and whole, not token by token.
import { signal } from "@preact/signals";

export const announcement = signal("");

export function announce(text: string): void {
  // The same text twice is no change, and would not be read again.
  announcement.value = announcement.value === text ? `${text}\u00a0` : text;
}

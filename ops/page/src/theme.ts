// Dark, light, or what the system says; charts and canvases are told when it changes.
import { effect, signal } from "@preact/signals";
import { persisted } from "./persisted";

export type Theme = "dark" | "light" | null;

export const theme = persisted<Theme>("theme", null);

/** Counts up whenever the colours change, so that what is drawn by hand is drawn again. */
export const colours = signal(0);

const system = matchMedia("(prefers-color-scheme: dark)");

export function isDark(): boolean {
  return theme.value === null ? system.matches : theme.value === "dark";
}

export function toggleTheme(): void {
  theme.value = isDark() ? "light" : "dark";
}

export function applyTheme(): void {
  effect(() => {
    if (theme.value) document.documentElement.dataset["theme"] = theme.value;
    else delete document.documentElement.dataset["theme"];
    colours.value = colours.peek() + 1;
  });
  system.addEventListener("change", () => (colours.value += 1));
}

const known = new Map<string, string>();
let knownFor = -1;

/** What a CSS variable is now, for what is drawn by hand: a pair of light and dark is resolved by an element that has it. */
export function colour(name: string): string {
  if (knownFor !== colours.peek()) known.clear();
  knownFor = colours.peek();
  const found = known.get(name);
  if (found !== undefined) return found;
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const resolved = getComputedStyle(probe).color;
  probe.remove();
  known.set(name, resolved);
  return resolved;
}

// How answers are made: sampling, presets from the server's table, system prompt and context document. All of it is
// kept in this browser; what is empty is left to the conversation, the model and the server.
import { computed, signal } from "@preact/signals";
import { ApiError, getJson } from "./api";
import { persisted } from "./persisted";
import type { Preset, Sampling } from "./wire";

export interface Field {
  name: keyof Sampling;
  label: string;
  hint: string;
  min: number;
  max?: number;
  step: number;
}

export const FIELDS: Field[] = [
  { name: "temperature", label: "Temperature", hint: "0 always takes the most probable token", min: 0, max: 2, step: 0.05 },
  { name: "top_p", label: "Top p", hint: "keep the most probable tokens up to this probability", min: 0.01, max: 1, step: 0.01 },
  { name: "top_k", label: "Top k", hint: "keep so many tokens; 0 keeps all", min: 0, step: 1 },
  { name: "min_p", label: "Min p", hint: "drop what is this much less probable than the best", min: 0, max: 1, step: 0.01 },
  { name: "repetition_penalty", label: "Repetition penalty", hint: "above 1 avoids words that are there", min: 0.1, max: 10, step: 0.05 },
  { name: "max_tokens", label: "Max tokens", hint: "of one answer", min: 1, step: 1 },
  { name: "seed", label: "Seed", hint: "the same seed gives the same text", min: -Number.MAX_SAFE_INTEGER, step: 1 },
];

/** What the user has set; a name that is missing is left to the server. */
export const sampling = persisted<Sampling>("sampling", {});

/** Of the open conversation, or, while none is open, of those that begin from now on. */
export const systemPrompt = signal("");
export const contextDocument = signal("");

/** For conversations that begin from now on. */
const ofNewOnes = persisted("system", { prompt: "", context: "" });

export function takeSystemOfNewOnes(): void {
  systemPrompt.value = ofNewOnes.value.prompt;
  contextDocument.value = ofNewOnes.value.context;
}

export function keepSystemForNewOnes(): void {
  ofNewOnes.value = { prompt: systemPrompt.value, context: contextDocument.value };
}

export const presets = signal<Preset[]>([]);

/** The preset that the settings are, if they are one; a changed field makes them nobody's. */
export const activePreset = computed(
  () => presets.value.find((preset) => isSame(samplingOf(preset), withoutSeedUnless(preset, sampling.value))) ?? null,
);

export async function loadPresets(): Promise<void> {
  try {
    presets.value = (await getJson<{ data: Preset[] }>("/v1/presets")).data;
  } catch (error) {
    // A server without the table has no presets, and the settings work without.
    if (!(error instanceof ApiError)) throw error;
    presets.value = [];
  }
}

export function choosePreset(preset: Preset): void {
  const own = sampling.value.seed;
  const chosen = samplingOf(preset);
  if (chosen.seed === undefined && own !== undefined) chosen.seed = own;
  sampling.value = chosen;
}

export function setField(name: keyof Sampling, text: string): void {
  const { [name]: _, ...rest } = sampling.value;
  const value = Number(text);
  sampling.value = text.trim() === "" || Number.isNaN(value) ? rest : { ...rest, [name]: value };
}

export function drawSeed(): void {
  setField("seed", String(Math.floor(Math.random() * 2 ** 31)));
}

function samplingOf(preset: Preset): Sampling {
  const entries = FIELDS.map((field) => [field.name, preset[field.name]] as const);
  return Object.fromEntries(entries.filter(([, value]) => value !== undefined && value !== null)) as Sampling;
}

/** A seed of one's own beside a preset that has none does not make it another one. */
function withoutSeedUnless(preset: Preset, values: Sampling): Sampling {
  if (preset.seed !== undefined && preset.seed !== null) return values;
  const { seed: _, ...rest } = values;
  return rest;
}

function isSame(left: Sampling, right: Sampling): boolean {
  return FIELDS.every((field) => left[field.name] === right[field.name]);
}

const CONTEXT_BEGINS = "<context>\n";
const CONTEXT_ENDS = "\n</context>";

/** System prompt and context document as one system message: the document's blocks are then computed once for all
 * turns and, where several conversations begin alike, for all of them. */
export function joinSystem(prompt: string, context: string): string | null {
  const parts = [prompt.trim(), context.trim() && CONTEXT_BEGINS + context.trim() + CONTEXT_ENDS];
  return parts.filter(Boolean).join("\n\n") || null;
}

/** The two parts again. */
export function splitSystem(system: string | null): { prompt: string; context: string } {
  const text = system ?? "";
  const begin = text.lastIndexOf(CONTEXT_BEGINS);
  if (begin < 0 || !text.endsWith(CONTEXT_ENDS)) return { prompt: text, context: "" };
  return {
    prompt: text.slice(0, begin).trim(),
    context: text.slice(begin + CONTEXT_BEGINS.length, -CONTEXT_ENDS.length),
  };
}

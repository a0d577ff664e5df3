// The engine's last minute: looks at it as they come from the event stream, and which of them is shown.
import { computed, signal } from "@preact/signals";
import { ApiError, call, isAborted, readEvents, told } from "./api";
import type { LiveView } from "./wire";

export const KEPT_S = 60;
const RETRY_MS = 1500;

/** Oldest first; replaced, never changed. */
export const frames = signal<LiveView[]>([]);

/** Null: always the newest. */
export const heldAt = signal<number | null>(null);

export const feedState = signal<"connecting" | "open" | "lost">("connecting");
export const feedProblem = signal<string | null>(null);

/** The problem is what the key may do. */
export const needsKey = signal(false);

export const isPaused = computed(() => heldAt.value !== null);

export const shownIndex = computed(() => {
  const all = frames.value;
  const held = heldAt.value;
  if (held === null) return all.length - 1;
  const found = all.findLastIndex((frame) => frame.at <= held);
  return Math.max(0, found);
});

export const shownFrame = computed<LiveView | null>(() => frames.value[shownIndex.value] ?? null);

/** While paused, the minute that was on the screen stays; it goes on from now when the pause ends. */
export function togglePause(): void {
  if (heldAt.value === null) heldAt.value = frames.value.at(-1)?.at ?? null;
  else heldAt.value = null;
}

export function scrubTo(index: number): void {
  const frame = frames.value[index];
  if (frame) heldAt.value = frame.at;
}

/** Watch one model until the function returned is called; empty: the default. */
export function watchEngine(model: string): () => void {
  const controller = new AbortController();
  frames.value = [];
  heldAt.value = null;
  feedProblem.value = null;
  needsKey.value = false;
  void follow(model, controller.signal);
  return () => controller.abort();
}

async function follow(model: string, signal: AbortSignal): Promise<void> {
  const query = model ? `?model=${encodeURIComponent(model)}` : "";
  while (!signal.aborted) {
    feedState.value = "connecting";
    try {
      const response = await call(`/v1/live${query}`, { signal, headers: { accept: "text/event-stream" } });
      feedState.value = "open";
      feedProblem.value = null;
      for await (const frame of readEvents<LiveView & { error?: { message: string } }>(response)) {
        if (frame.error) throw new Error(frame.error.message);
        if (!signal.aborted) keep(frame);
      }
    } catch (error) {
      if (isAborted(error) || signal.aborted) return;
      feedProblem.value = told(error);
      needsKey.value = error instanceof ApiError && error.status === 403;
      // Asking again does not change what a key may do.
      if (error instanceof ApiError && [401, 403, 404].includes(error.status)) return;
    }
    feedState.value = "lost";
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

function keep(frame: LiveView): void {
  const last = frames.value.at(-1);
  // Another engine counts from the beginning: what was before it is no part of its story.
  const isNewEngine = last !== undefined && frame.counters.num_steps < last.counters.num_steps;
  if (isPaused.value && !isNewEngine) return;
  const from = frame.at - KEPT_S;
  frames.value = [...(isNewEngine ? [] : frames.value.filter((one) => one.at >= from)), frame];
  if (isNewEngine) heldAt.value = null;
}

export interface Series {
  /** Seconds before the newest frame: 0 or less. */
  at: number[];
  generated: (number | null)[];
  prompt: (number | null)[];
  running: number[];
  waiting: number[];
  stepMs: (number | null)[];
  betweenTokensMs: (number | null)[];
  firstTokenMs: (number | null)[];
}

/** What the charts draw: rates and means between one frame and the next. */
export const series = computed<Series>(() => {
  const all = frames.value;
  const newest = all.at(-1)?.at ?? 0;
  const found: Series = { at: [], generated: [], prompt: [], running: [], waiting: [], stepMs: [], betweenTokensMs: [], firstTokenMs: [] };
  all.forEach((frame, index) => {
    const before = all[index - 1];
    found.at.push(frame.at - newest);
    found.running.push(frame.running.length);
    found.waiting.push(frame.num_waiting);
    if (!before) {
      for (const name of ["generated", "prompt", "stepMs", "betweenTokensMs", "firstTokenMs"] as const) found[name].push(null);
      return;
    }
    const now = frame.counters;
    const then = before.counters;
    const seconds = frame.at - before.at;
    found.generated.push((now.num_generated_tokens - then.num_generated_tokens) / seconds);
    found.prompt.push((now.num_prompt_tokens - then.num_prompt_tokens) / seconds);
    found.stepMs.push(mean(now.step_time_s - then.step_time_s, now.num_steps - then.num_steps));
    found.betweenTokensMs.push(mean(now.inter_token_s - then.inter_token_s, now.num_inter_tokens - then.num_inter_tokens));
    found.firstTokenMs.push(mean(now.first_token_s - then.first_token_s, now.num_first_tokens - then.num_first_tokens));
  });
  return found;
});

function mean(seconds: number, number: number): number | null {
  return number > 0 ? (seconds / number) * 1000 : null;
}

/** Rows of a second ago that are no more, so that leaving the batch can be seen. */
export function leftSince(all: LiveView[], index: number, withinS: number): LiveView["running"] {
  const now = all[index];
  if (!now) return [];
  const here = new Set(now.running.map((row) => row.seq));
  const gone = new Map<number, LiveView["running"][number]>();
  for (let at = index - 1; at >= 0; at--) {
    const frame = all[at];
    if (!frame || frame.at < now.at - withinS) break;
    for (const row of frame.running) if (!here.has(row.seq) && !gone.has(row.seq)) gone.set(row.seq, row);
  }
  return [...gone.values()];
}

// The open conversation and the answer under way: send, stop, answer again, edit. The server keeps what was said; where
// it keeps nothing, the messages here are all there is.
import { batch, computed, effect, signal } from "@preact/signals";
import { announce } from "./announce";
import { ApiError, call, getJson, isAborted, readEvents, told } from "./api";
import * as kept from "./conversations";
import { load, save } from "./persisted";
import { model, models, pickedModel } from "./models";
import { chatLink, place, rename } from "./router";
import {
  contextDocument,
  joinSystem,
  keepSystemForNewOnes,
  sampling,
  splitSystem,
  systemPrompt,
  takeSystemOfNewOnes,
} from "./settings";
import type { ChatChunk, ConversationDetail, Explanation, KeptMessage } from "./wire";

/** What is known of how an answer was made. */
export interface Figures {
  requestId: string;
  tokens: number;
  promptTokens: number | null;
  cachedTokens: number | null;
  firstTokenMs: number | null;
  tokensPerS: number | null;
}

export interface Message {
  /** Of the kept message; null until the server has told it. */
  id: string | null;
  role: "user" | "assistant";
  content: string;
  model: string | null;
  finishReason: string | null;
  error: string | null;
  figures: Figures | null;
}

export interface Running {
  requestId: string;
  state: "sending" | "loading" | "waiting" | "answering";
  startedMs: number;
  /** Sequences that go first, while it waits. */
  queuePosition: number | null;
  firstTokenMs: number | null;
  numChunks: number;
}

export const conversationId = signal<string | null>(null);
export const title = signal<string | null>(null);
export const messages = signal<Message[]>([]);
export const running = signal<Running | null>(null);
export const isOpening = signal(false);

/** Why the last thing that was asked for did not work. */
export const problem = signal<string | null>(null);

/** Text of the answer under way; beside `messages`, so that a token redraws one element. */
export const liveText = signal("");

export const isBusy = computed(() => running.value !== null);
export const lastTurnIsOpen = computed(() => messages.value.at(-1)?.role === "user" && !isBusy.value);

const WAIT_BEFORE_ASKING_MS = 400;
const ASK_EVERY_MS = 600;
const MAX_FIGURES = 200;
const CUT_REPLY_ATTEMPTS = 4;
const CUT_REPLY_PAUSE_MS = 400;

let controller: AbortController | null = null;

/** The system message that the server has of the open conversation. */
let keptSystem: string | null = null;

// ---- which conversation

/** Follow the address; a conversation that begins here has its messages already. */
export function followAddress(): void {
  effect(() => {
    const where = place.value;
    if (where.view !== "chat" || where.conversationId === conversationId.peek()) return;
    void open(where.conversationId);
  });
}

export async function open(id: string | null): Promise<void> {
  stop();
  batch(() => {
    conversationId.value = id;
    title.value = null;
    messages.value = [];
    problem.value = null;
    liveText.value = "";
    running.value = null;
    isOpening.value = id !== null;
    takeSystemOfNewOnes();
  });
  if (id === null) return;
  try {
    const found = await kept.read(id);
    if (conversationId.value === id) show(found);
    if (conversationId.value === id) await awaitCutReply(id);
  } catch (error) {
    if (conversationId.value === id) problem.value = told(error);
  } finally {
    if (conversationId.value === id) isOpening.value = false;
  }
}

/** A page that was loaded again while an answer came: what had come is kept a moment after the old page has gone. */
async function awaitCutReply(id: string): Promise<void> {
  for (let attempt = 0; attempt < CUT_REPLY_ATTEMPTS; attempt++) {
    const last = messages.value.at(-1);
    if (last?.role !== "user" || last.error !== null) return;
    await new Promise((resolve) => setTimeout(resolve, CUT_REPLY_PAUSE_MS));
    const found = await kept.read(id);
    if (conversationId.value !== id || running.value !== null) return;
    if (found.messages.at(-1)?.role === "assistant") return show(found);
  }
}

function show(found: ConversationDetail): void {
  batch(() => {
    title.value = found.title;
    const known = load<Record<string, Figures>>("figures", {});
    messages.value = found.messages.map((one) => messageOf(one, known[one.id] ?? null));
    if (found.model && models.value.some((card) => card.id === found.model)) pickedModel.value = found.model;
    keptSystem = found.system_prompt;
    const system = splitSystem(found.system_prompt);
    systemPrompt.value = system.prompt;
    contextDocument.value = system.context;
  });
}

function messageOf(one: KeptMessage, figures: Figures | null): Message {
  return {
    id: one.id,
    role: one.role,
    content: one.content,
    model: one.model ?? null,
    finishReason: one.finish_reason ?? null,
    error: one.error ?? null,
    figures,
  };
}

/** The server has the last word on ids; figures are known only here. */
async function syncIds(id: string): Promise<void> {
  for (let attempt = 0; attempt < 6; attempt++) {
    const found = await kept.read(id).catch(() => null);
    if (found === null || conversationId.value !== id || running.value !== null) return;
    const here = messages.value;
    // A reply that was stopped is kept a moment after its client has left.
    if (found.messages.length >= here.length) {
      const merged = found.messages.map((one, index) => messageOf(one, here[index]?.figures ?? null));
      messages.value = merged;
      title.value = found.title;
      keepFigures(merged);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 80 * 2 ** attempt));
  }
}

function keepFigures(all: Message[]): void {
  const known = load<Record<string, Figures>>("figures", {});
  for (const one of all) if (one.id && one.figures) known[one.id] = one.figures;
  save("figures", Object.fromEntries(Object.entries(known).slice(-MAX_FIGURES)));
}

/** System prompt or context may have changed: the open conversation takes them from its next message on. */
export async function keepSystem(): Promise<void> {
  const id = conversationId.value;
  if (id === null) return keepSystemForNewOnes();
  const system = joinSystem(systemPrompt.value, contextDocument.value);
  if (system === keptSystem) return;
  keptSystem = system;
  await kept.change(id, { system_prompt: system }).catch((error) => (problem.value = told(error)));
}

/** The open conversation is answered by this model from now on. */
export async function keepModel(id: string): Promise<void> {
  if (conversationId.value === null) return;
  await kept.change(conversationId.value, { model: id }).catch((error) => (problem.value = told(error)));
}

// ---- what the user does

export async function send(text: string): Promise<void> {
  if (running.value !== null || !text.trim()) return;
  const last = messages.value.at(-1);
  // A message that got no reply is taken up when it is posted again, and left out of prompts when another is.
  if (last?.role !== "user" || last.content !== text) messages.value = [...messages.value, ask(text)];
  await answer(text);
}

export function stop(): void {
  controller?.abort();
}

/** Answer the last message of the user anew. */
export async function regenerate(): Promise<void> {
  const at = messages.value.findLastIndex((one) => one.role === "user");
  const asked = messages.value[at];
  if (running.value !== null || asked === undefined) return;
  await restart(at, asked.content);
}

/** Say something else instead of the message at this place, and go on from there. */
export async function restart(at: number, text: string): Promise<void> {
  if (running.value !== null) return;
  const old = messages.value[at];
  const reply = messages.value[at + 1];
  problem.value = null;
  try {
    if (conversationId.value !== null) {
      const isSame = old?.content === text;
      // The same message without its reply is answered anew; another one takes its place.
      const from = isSame ? reply : old;
      if (from && from.id === null) await syncIds(conversationId.value);
      const cutAt = messages.value[isSame ? at + 1 : at]?.id;
      if (cutAt) await kept.cut(conversationId.value, cutAt);
    }
  } catch (error) {
    problem.value = told(error);
    return;
  }
  messages.value = [...messages.value.slice(0, at), ask(text)];
  await answer(text);
}

/** Remove every message. */
export async function clear(): Promise<void> {
  stop();
  problem.value = null;
  try {
    const id = conversationId.value;
    if (id !== null) {
      const first = (await kept.read(id)).messages[0];
      if (first) await kept.cut(id, first.id);
    }
    messages.value = [];
    announce("The conversation is empty");
  } catch (error) {
    problem.value = told(error);
  }
}

function ask(text: string): Message {
  return { id: null, role: "user", content: text, model: null, finishReason: null, error: null, figures: null };
}

// ---- the answer

interface Outcome {
  finishReason: string | null;
  figures: Figures;
  model: string;
}

async function answer(text: string): Promise<void> {
  const abort = (controller = new AbortController());
  const requestId = `page-${crypto.getRandomValues(new Uint32Array(3)).join("")}`;
  const startedMs = performance.now();
  batch(() => {
    problem.value = null;
    liveText.value = "";
    running.value = { requestId, state: "sending", startedMs, queuePosition: null, firstTokenMs: null, numChunks: 0 };
  });
  announce("Answering");
  const isMine = () => running.value?.requestId === requestId;
  const asking = setTimeout(() => void askForPlace(requestId), WAIT_BEFORE_ASKING_MS);
  const outcome: Outcome = {
    finishReason: null,
    model: model.value?.id ?? "",
    figures: { requestId, tokens: 0, promptTokens: null, cachedTokens: null, firstTokenMs: null, tokensPerS: null },
  };
  let failure: string | null = null;
  const wasNew = conversationId.value === null;
  try {
    const id = await conversationFor(isMine);
    await stream(requestId, id, text, abort.signal, outcome, startedMs, isMine);
  } catch (error) {
    if (isAborted(error)) outcome.finishReason = "cancelled";
    else failure = told(error);
  }
  clearTimeout(asking);
  if (!isMine()) return; // another conversation was opened meanwhile
  const made = wasNew ? conversationId.value : null;
  end(outcome, failure);
  if (failure && made) await dropEmpty(made);
}

/** A conversation whose first message was refused holds nothing: the next attempt begins another. */
async function dropEmpty(id: string): Promise<void> {
  const found = await kept.read(id).catch(() => null);
  if (found === null || found.messages.length > 0 || conversationId.value !== id || running.value !== null) return;
  conversationId.value = null;
  if (place.value.view === "chat") rename(chatLink(null));
  await kept.remove(id).catch(() => undefined); // it may stay: it is empty
}

/** The conversation to go on with, made by its first message; null where none are kept, or for a base model. */
async function conversationFor(isMine: () => boolean): Promise<string | null> {
  if (conversationId.value !== null || !kept.isKept.value || model.value?.kind === "base") return conversationId.value;
  const system = joinSystem(systemPrompt.value, contextDocument.value);
  const wanted: { system_prompt?: string; model?: string } = {};
  if (system) wanted.system_prompt = system;
  if (model.value) wanted.model = model.value.id;
  try {
    const made = await kept.create(wanted);
    if (!isMine()) return made.id;
    keptSystem = system;
    conversationId.value = made.id;
    if (place.value.view === "chat") rename(chatLink(made.id));
    return made.id;
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== "conversations_off") throw error;
    kept.isKept.value = false;
    return null;
  }
}

async function stream(
  requestId: string,
  conversation: string | null,
  text: string,
  signal: AbortSignal,
  outcome: Outcome,
  startedMs: number,
  isMine: () => boolean,
): Promise<void> {
  const isBase = model.value?.kind === "base";
  const common = { model: model.value?.id, stream: true, stream_options: { include_usage: true }, ...sampling.value };
  const path = isBase ? "/v1/completions" : "/v1/chat/completions";
  const body = isBase ? { ...common, prompt: text } : { ...common, ...(conversation ? { conversation } : {}), messages: toSend(conversation, text) };
  const response = await call(path, { method: "POST", body, signal, headers: { "x-request-id": requestId } });
  let lastMs = startedMs;
  for await (const chunk of readEvents<ChatChunk & { choices: { text?: string }[] }>(response)) {
    if (chunk.error) throw new Error(chunk.error.message);
    if (!isMine()) return;
    if (chunk.usage) {
      outcome.figures.tokens = chunk.usage.completion_tokens;
      outcome.figures.promptTokens = chunk.usage.prompt_tokens;
      outcome.figures.cachedTokens = chunk.usage.prompt_tokens_details.cached_tokens;
    }
    const choice = chunk.choices[0];
    if (choice?.finish_reason) outcome.finishReason = choice.finish_reason;
    const piece = choice?.delta?.content ?? choice?.text;
    if (!piece) continue;
    lastMs = performance.now();
    outcome.figures.firstTokenMs ??= lastMs - startedMs;
    outcome.figures.tokens += 1;
    take(piece, outcome.figures.firstTokenMs);
    const decodeS = (lastMs - startedMs - outcome.figures.firstTokenMs) / 1000;
    outcome.figures.tokensPerS = decodeS > 0 ? (outcome.figures.tokens - 1) / decodeS : null;
  }
}

/** Only what is new where the server keeps the conversation; all of it where it does not. */
function toSend(conversation: string | null, text: string): { role: string; content: string }[] {
  const asked = { role: "user", content: text };
  if (conversation !== null) return [asked];
  const system = joinSystem(systemPrompt.value, contextDocument.value);
  const all = messages.value;
  const answered = all.slice(0, -1).filter((one, index) => one.role === "assistant" || all[index + 1]?.role === "assistant");
  const earlier = answered.map(({ role, content }) => ({ role, content }));
  return [...(system ? [{ role: "system", content: system }] : []), ...earlier, asked];
}

function take(piece: string, firstTokenMs: number): void {
  batch(() => {
    liveText.value += piece;
    const now = running.value;
    if (now) running.value = { ...now, state: "answering", queuePosition: null, firstTokenMs, numChunks: now.numChunks + 1 };
  });
}

function end(outcome: Outcome, failure: string | null): void {
  const text = liveText.value;
  batch(() => {
    running.value = null;
    liveText.value = "";
    if (text) messages.value = [...messages.value, replyOf(text, outcome, failure)];
    problem.value = failure;
  });
  const ending = failure ? `The answer failed: ${failure}` : outcome.finishReason === "cancelled" ? "Stopped" : `Answer: ${text}`;
  announce(ending.slice(0, 4000));
  const id = conversationId.value;
  if (id !== null) void syncIds(id).then(() => kept.refreshConversations());
}

function replyOf(text: string, outcome: Outcome, failure: string | null): Message {
  return {
    id: null,
    role: "assistant",
    content: text,
    model: outcome.model,
    finishReason: failure ? "error" : outcome.finishReason,
    error: null,
    figures: outcome.figures,
  };
}

/** While nothing comes: the place in the queue, or how far the model's loading is. */
async function askForPlace(requestId: string): Promise<void> {
  for (;;) {
    const now = running.value;
    if (now?.requestId !== requestId || now.state === "answering") return;
    const found = await getJson<Explanation>(`/v1/requests/${requestId}`).catch(() => null);
    const still = running.value;
    if (still?.requestId !== requestId || still.state === "answering") return;
    const isLoading = found === null && model.value !== null && model.value.state !== "ready";
    running.value = {
      ...still,
      state: found ? "waiting" : isLoading ? "loading" : "sending",
      queuePosition: found?.queue_position ?? null,
    };
    await new Promise((resolve) => setTimeout(resolve, ASK_EVERY_MS));
  }
}

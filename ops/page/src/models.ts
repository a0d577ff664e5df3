// What is served, how far its loading is, and whether the server answers at all.
import { computed, signal } from "@preact/signals";
import { ApiError, call, getJson, isAborted, readEvents, told } from "./api";
import { announce } from "./announce";
import { persisted } from "./persisted";
import type { ErrorObject, ModelCard } from "./wire";

export type Connection = "connecting" | "ok" | "starting" | "restarting" | "draining" | "dead" | "offline" | "refused";

export const models = signal<ModelCard[]>([]);
export const connection = signal<Connection>("connecting");

/** What the user picked; empty: the server's default. */
export const pickedModel = persisted("model", "");

/** Why the last load of a model did not work, for the picker. */
export const loadProblem = signal<string | null>(null);

export const model = computed<ModelCard | null>(
  () =>
    models.value.find((card) => card.id === pickedModel.value) ??
    models.value.find((card) => card.is_default) ??
    models.value[0] ??
    null,
);

const POLL_MS = 5000;
const EAGER_POLL_MS = 700;

export async function refreshModels(): Promise<void> {
  models.value = (await getJson<{ data: ModelCard[] }>("/v1/models")).data;
}

/** Ask for ever: seldom while all is well, often while something is on its way. */
export function watchServer(): void {
  let timer = 0;
  const look = async () => {
    clearTimeout(timer);
    await lookOnce();
    const isMoving = connection.value !== "ok" || models.value.some((card) => card.state === "loading");
    timer = window.setTimeout(look, isMoving ? EAGER_POLL_MS : POLL_MS);
  };
  document.addEventListener("visibilitychange", () => {
    if (document.visibilityState === "visible") void look();
    else clearTimeout(timer);
  });
  void look();
}

async function lookOnce(): Promise<void> {
  try {
    const { status } = await getJson<{ status: Connection | "healthy" }>("/health");
    connection.value = status === "healthy" ? "ok" : status;
    await refreshModels();
  } catch (error) {
    connection.value = stateOf(error);
  }
}

function stateOf(error: unknown): Connection {
  if (!(error instanceof ApiError) || error.status === 0) return "offline";
  if (error.status === 401 || error.status === 403) return "refused";
  return error.code === "starting" ? "starting" : "restarting";
}

/** Pick a model and have it loaded, showing every stage; without the right to load, its first message does it. */
export async function pick(card: ModelCard): Promise<void> {
  pickedModel.value = card.id;
  loadProblem.value = null;
  if (card.state === "ready") return;
  announce(`Loading ${card.display_name}`);
  try {
    const response = await call(`/v1/models/${card.id}/load`, { method: "POST", headers: { accept: "text/event-stream" } });
    for await (const event of readEvents<ModelCard | { error: ErrorObject }>(response)) {
      if (!("id" in event)) throw new Error(event.error.message);
      models.value = models.value.map((other) => (other.id === event.id ? event : other));
    }
    announce(`${card.display_name} is ready`);
  } catch (error) {
    if (isAborted(error)) return;
    const isForbidden = error instanceof ApiError && error.status === 403;
    loadProblem.value = isForbidden ? "The first message loads this model: this key may not do it by itself." : told(error);
  }
}

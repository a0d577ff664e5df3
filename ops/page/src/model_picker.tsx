// Which model answers: a button that says so, and a list of all that are declared, with the progress of loading.
import { signal } from "@preact/signals";
import { Dialog } from "./dialogs";
import { bytes, count, parameters } from "./format";
import { keepModel } from "./chat";
import { Icon } from "./icons";
import { type Connection, connection, loadProblem, model, models, pick } from "./models";
import type { ModelCard } from "./wire";

const isOpen = signal(false);

const CONNECTION_WORDS: Record<Connection, string> = {
  connecting: "Connecting…",
  ok: "Connected",
  starting: "The model is being loaded…",
  restarting: "The engine is being restarted…",
  draining: "The server is going down",
  dead: "The engine has stopped",
  offline: "The server cannot be reached",
  refused: "The server wants a key",
};

export function ModelButton() {
  const card = model.value;
  const state = connection.value;
  const words = CONNECTION_WORDS[state];
  return (
    <>
      <button type="button" class="model-button" aria-haspopup="dialog" onClick={() => (isOpen.value = true)}>
        <span class={`dot ${state}`} title={words} />
        <span class="model-name">{card ? card.display_name : words}</span>
        {card?.kind && <span class={`badge ${card.kind}`}>{card.kind}</span>}
        {card && card.state === "loading" && <LoadBar card={card} />}
        <Icon name="down" />
        <span class="hidden">{words}. Choose a model</span>
      </button>
      {state !== "ok" && state !== "connecting" && (
        <span class="connection" role="status">
          {words}
        </span>
      )}
      {isOpen.value && <Picker />}
    </>
  );
}

function Picker() {
  return (
    <Dialog title="Models" onClose={() => (isOpen.value = false)} class="picker">
      {loadProblem.value && (
        <p class="problem" role="alert">
          {loadProblem.value}
        </p>
      )}
      <ul class="models">
        {models.value.map((card) => (
          <li key={card.id}>
            <Choice card={card} />
          </li>
        ))}
      </ul>
    </Dialog>
  );
}

function Choice({ card }: { card: ModelCard }) {
  const isChosen = model.value?.id === card.id;
  const choose = async () => {
    void keepModel(card.id);
    if (card.state === "ready") isOpen.value = false;
    await pick(card);
  };
  return (
    <button type="button" class="choice" aria-pressed={isChosen} onClick={() => void choose()}>
      <span class="choice-head">
        <strong>{card.display_name}</strong>
        {card.kind && <span class={`badge ${card.kind}`}>{card.kind}</span>}
        {card.is_default && <span class="badge">default</span>}
        <span class={`state ${card.state}`}>{STATE_WORDS[card.state]}</span>
      </span>
      {card.description && <span class="quiet">{card.description}</span>}
      <span class="quiet facts">{factsOf(card)}</span>
      {card.state === "loading" && <LoadBar card={card} isTold />}
      {card.error && <span class="bad">{card.error}</span>}
    </button>
  );
}

const STATE_WORDS = {
  ready: "loaded",
  loading: "loading",
  unloaded: "loaded when it is chosen",
  draining: "being unloaded",
  failed: "failed",
} as const;

function factsOf(card: ModelCard): string {
  const facts = [
    card.num_parameters === null ? null : `${parameters(card.num_parameters)} parameters`,
    card.max_model_len === null ? null : `${count(card.max_model_len)} tokens`,
    card.dtype,
    bytes(card.memory_bytes),
  ];
  return facts.filter(Boolean).join(" · ");
}

function LoadBar({ card, isTold = false }: { card: ModelCard; isTold?: boolean }) {
  const progress = card.progress;
  const words = progress?.stage ? `${progress.stage}…` : "loading…";
  return (
    <span class="load">
      <progress aria-label={`Loading ${card.display_name}: ${words}`} value={progress?.fraction ?? undefined} max={1} />
      {isTold && <span class="quiet">{words}</span>}
    </span>
  );
}

// Where one writes: Enter sends, Shift+Enter begins a line, the arrow keys bring back what was said before.
import { effect, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { conversationId, isBusy, lastTurnIsOpen, messages, regenerate, send, stop } from "./chat";
import { Icon } from "./icons";
import { model } from "./models";
import { load, persisted, save } from "./persisted";
import { activePreset, choosePreset, presets, sampling } from "./settings";

const MAX_HISTORY = 50;
const MAX_DRAFTS = 30;

const draft = signal("");
const history = persisted<string[]>("history", []);

/** What was being written in each conversation; empty for a new one. */
effect(() => {
  const drafts = load<Record<string, string>>("drafts", {});
  draft.value = drafts[conversationId.value ?? ""] ?? "";
});

export function writeDraft(text: string): void {
  draft.value = text;
  const { [conversationId.value ?? ""]: _, ...others } = load<Record<string, string>>("drafts", {});
  const kept = Object.entries(others).slice(-MAX_DRAFTS);
  save("drafts", Object.fromEntries(text ? [...kept, [conversationId.value ?? "", text]] : kept));
}

export function Composer() {
  const area = useRef<HTMLTextAreaElement>(null);
  const recalled = useRef(-1);
  useEffect(() => {
    if (area.current) fit(area.current);
  }, [draft.value]);
  useEffect(() => {
    if (matchMedia("(pointer: fine)").matches) area.current?.focus();
  }, [conversationId.value]);

  const submit = (event: Event) => {
    event.preventDefault();
    const text = draft.value.trim();
    if (!text || isBusy.value) return;
    history.value = [text, ...history.value.filter((one) => one !== text)].slice(0, MAX_HISTORY);
    recalled.current = -1;
    writeDraft("");
    void send(text);
  };
  const recall = (step: 1 | -1) => {
    const at = recalled.current + step;
    if (at < -1 || at >= history.value.length) return;
    recalled.current = at;
    writeDraft(history.value[at] ?? "");
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.isComposing) return;
    const isRecalling = draft.value === "" || draft.value === history.value[recalled.current];
    if (event.key === "Enter" && !event.shiftKey) submit(event);
    else if (event.key === "ArrowUp" && isRecalling) {
      event.preventDefault();
      recall(1);
    } else if (event.key === "ArrowDown" && isRecalling && recalled.current >= 0) {
      event.preventDefault();
      recall(-1);
    }
  };
  const isBase = model.value?.kind === "base";
  return (
    <form id="composer" onSubmit={submit}>
      <div class="writing">
        <label class="hidden" for="prompt">
          Message
        </label>
        <textarea
          id="prompt"
          ref={area}
          rows={1}
          placeholder={isBase ? "A text to be continued" : "Message"}
          value={draft.value}
          onInput={(event) => {
            recalled.current = -1;
            writeDraft(event.currentTarget.value);
          }}
          onKeyDown={onKeyDown}
        />
        {isBusy.value ? (
          <button type="button" id="stop" class="round" title="Stop (Esc)" onClick={stop}>
            <Icon name="stop" />
            <span class="hidden">Stop</span>
          </button>
        ) : (
          <button type="submit" id="send" class="round primary" title="Send (Enter)" disabled={!draft.value.trim()}>
            <Icon name="send" />
            <span class="hidden">Send</span>
          </button>
        )}
      </div>
      <div class="under">
        <PresetPicker />
        {lastTurnIsOpen.value && messages.value.length > 0 ? (
          <button type="button" class="plain wide" onClick={() => void regenerate()}>
            <Icon name="again" /> Try again
          </button>
        ) : (
          <span class="quiet keys">
            <kbd>Enter</kbd> sends · <kbd>Shift</kbd>+<kbd>Enter</kbd> new line · <kbd>Esc</kbd> stops
          </span>
        )}
      </div>
    </form>
  );
}

function fit(area: HTMLTextAreaElement): void {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}

function PresetPicker() {
  if (presets.value.length === 0) return <span />;
  const isOwn = activePreset.value === null && Object.keys(sampling.value).length > 0;
  const value = activePreset.value?.id ?? (isOwn ? "own" : "");
  const choose = (id: string) => {
    const preset = presets.value.find((one) => one.id === id);
    if (preset) choosePreset(preset);
    else if (id === "") sampling.value = {};
  };
  return (
    <label class="preset">
      <span class="hidden">Preset</span>
      <select id="preset" value={value} onChange={(event) => choose(event.currentTarget.value)}>
        <option value="">Model's defaults</option>
        {presets.value.map((preset) => (
          <option key={preset.id} value={preset.id}>
            {nameOfPreset(preset.id)}
          </option>
        ))}
        {isOwn && <option value="own">Your own settings</option>}
      </select>
    </label>
  );
}

export function nameOfPreset(id: string): string {
  const words = id.replaceAll(/[_-]+/g, " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

// The settings: preset, sampling, system prompt, context document, key. A change counts from the next message on.
import { signal } from "@preact/signals";
import { apiKey } from "./api";
import { conversationId, keepSystem } from "./chat";
import { nameOfPreset } from "./composer";
import { Dialog } from "./dialogs";
import { Icon } from "./icons";
import { model } from "./models";
import {
  FIELDS,
  type Field,
  activePreset,
  choosePreset,
  contextDocument,
  drawSeed,
  presets,
  sampling,
  setField,
  systemPrompt,
} from "./settings";

export const areSettingsOpen = signal(false);

export function SettingsPanel() {
  if (!areSettingsOpen.value) return null;
  const close = () => {
    areSettingsOpen.value = false;
    void keepSystem();
  };
  return (
    <Dialog title="Settings" onClose={close} class="drawer">
      <section>
        <h3>What the model is told</h3>
        <p class="quiet">
          {conversationId.value === null
            ? "For conversations that begin from now on."
            : "Of this conversation, from its next message on."}
        </p>
        <label>
          System prompt
          <textarea
            name="system"
            rows={3}
            value={systemPrompt.value}
            onInput={(event) => (systemPrompt.value = event.currentTarget.value)}
          />
        </label>
        <label>
          Context document
          <textarea
            name="context"
            rows={4}
            placeholder="A text that the questions are about"
            value={contextDocument.value}
            onInput={(event) => (contextDocument.value = event.currentTarget.value)}
          />
        </label>
      </section>
      <section>
        <h3>How it answers</h3>
        <Presets />
        <div class="fields">
          {FIELDS.map((field) => (
            <SamplingField key={field.name} field={field} />
          ))}
        </div>
        <p class="buttons">
          <button type="button" id="reset-sampling" onClick={() => (sampling.value = {})}>
            Back to the model's defaults
          </button>
        </p>
      </section>
      {apiKey.value && (
        <section>
          <h3>API key</h3>
          <p class="buttons">
            <button type="button" onClick={() => (apiKey.value = "")}>
              Forget the key kept in this browser
            </button>
          </p>
        </section>
      )}
      <section>
        <h3>Keys</h3>
        <dl class="shortcuts">
          {SHORTCUTS.map(([keys, what]) => (
            <div key={keys}>
              <dt>
                {keys.split("+").map((key, at) => (
                  <span key={key}>
                    {at > 0 && "+"}
                    <kbd>{key}</kbd>
                  </span>
                ))}
              </dt>
              <dd>{what}</dd>
            </div>
          ))}
        </dl>
      </section>
    </Dialog>
  );
}

const SHORTCUTS: [string, string][] = [
  ["Enter", "send; Shift+Enter begins a line"],
  ["Esc", "stop the answer"],
  ["↑", "in an empty message: what was said before"],
  ["Ctrl+Shift+O", "new chat"],
  ["Ctrl+K", "search conversations"],
  ["Ctrl+,", "settings"],
  ["Alt+1", "chat; Alt+2 why; Alt+3 live"],
];

function Presets() {
  if (presets.value.length === 0) return null;
  return (
    <div class="presets" role="group" aria-label="Presets">
      {presets.value.map((preset) => (
        <button
          type="button"
          key={preset.id}
          aria-pressed={activePreset.value?.id === preset.id}
          onClick={() => choosePreset(preset)}
        >
          {nameOfPreset(preset.id)}
        </button>
      ))}
    </div>
  );
}

function SamplingField({ field }: { field: Field }) {
  const value = sampling.value[field.name];
  const fallback = model.value?.sampling_defaults?.[field.name];
  const id = `field-${field.name}`;
  const placeholder = fallback === undefined ? (field.name === "seed" ? "random" : "as many as fit") : String(fallback);
  return (
    <div class="field">
      <label for={id}>{field.label}</label>
      <div class="with-button">
        <input
          id={id}
          name={field.name}
          type="number"
          min={field.min}
          max={field.max}
          step={field.step}
          value={value === undefined ? "" : String(value)}
          placeholder={placeholder}
          aria-describedby={`${id}-hint`}
          onInput={(event) => event.currentTarget.validity.badInput || setField(field.name, event.currentTarget.value)}
        />
        {field.name === "seed" && (
          <button type="button" title="Draw a seed" onClick={drawSeed}>
            <Icon name="dice" />
            <span class="hidden">Draw a seed</span>
          </button>
        )}
      </div>
      <small class="quiet" id={`${id}-hint`}>
        {field.hint}
      </small>
    </div>
  );
}

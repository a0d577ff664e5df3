// Dialogs of the browser's own kind: it keeps the focus inside, closes them on Escape and puts the focus back.
import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { apiKey, keyProblem } from "./api";
import { Icon } from "./icons";

interface DialogProps {
  title: string;
  onClose: () => void;
  class?: string;
  children: ComponentChildren;
}

export function Dialog({ title, onClose, class: name = "", children }: DialogProps) {
  const ref = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog
      ref={ref}
      class={name}
      aria-label={title}
      onClose={onClose}
      onClick={(event) => event.target === ref.current && ref.current?.close()}
    >
      <div class="dialog-body">
        <div class="dialog-head">
          <h2>{title}</h2>
          <button type="button" class="plain" aria-label="Close" onClick={() => ref.current?.close()}>
            <Icon name="close" />
          </button>
        </div>
        {children}
      </div>
    </dialog>
  );
}

interface Question {
  title: string;
  text: string;
  action: string;
  /** Asks for a text and begins with this one. */
  value?: string;
  onYes: (value: string) => void;
}

const question = signal<Question | null>(null);

/** Ask before something is lost, or for a name. */
export function askUser(asked: Question): void {
  question.value = asked;
}

export function QuestionDialog() {
  const asked = question.value;
  if (asked === null) return null;
  return <QuestionForm key={asked.title + asked.text} asked={asked} />;
}

function QuestionForm({ asked }: { asked: Question }) {
  const [value, setValue] = useState(asked.value ?? "");
  const close = () => (question.value = null);
  const submit = (event: Event) => {
    event.preventDefault();
    close();
    asked.onYes(value);
  };
  const isNaming = asked.value !== undefined;
  return (
    <Dialog title={asked.title} onClose={close} class="small">
      <form onSubmit={submit}>
        <label>
          {asked.text}
          {isNaming && (
            <input value={value} maxLength={200} required autofocus onInput={(event) => setValue(event.currentTarget.value)} />
          )}
        </label>
        <p class="buttons">
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class={isNaming ? "primary" : "danger"} autofocus={!isNaming}>
            {asked.action}
          </button>
        </p>
      </form>
    </Dialog>
  );
}

/** Asks for a key when the server has refused the one that it was sent, or none. */
export function KeyDialog({ onChange }: { onChange: () => void }) {
  const [value, setValue] = useState("");
  const problem = keyProblem.value;
  if (problem === null) return null;
  const close = () => (keyProblem.value = null);
  const submit = (event: Event) => {
    event.preventDefault();
    apiKey.value = value.trim();
    close();
    onChange();
  };
  return (
    <Dialog title="API key" onClose={close} class="small">
      <form onSubmit={submit}>
        <p>{problem}</p>
        <label>
          Key
          <input type="password" autocomplete="off" autofocus value={value} onInput={(event) => setValue(event.currentTarget.value)} />
        </label>
        <p class="quiet">It is kept in this browser until you remove it in the settings.</p>
        <p class="buttons">
          <button type="submit" class="primary">
            Use this key
          </button>
        </p>
      </form>
    </Dialog>
  );
}

// One message: its text, how it was made, and what can be done with it.
import { effect, signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import { type Message, isBusy, liveText, regenerate, restart, running } from "./chat";
import { copyText } from "./clipboard";
import { count, milliseconds, rate } from "./format";
import { Icon } from "./icons";
import { GrowingMarkdown } from "./markdown";
import { models } from "./models";
import { whyLink } from "./router";

/** Markdown that does not change any more. */
function Markdown({ text }: { text: string }) {
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!ref.current) return;
    ref.current.replaceChildren();
    const view = new GrowingMarkdown(ref.current);
    view.update(text);
    view.finish();
  }, [text]);
  return <div class="text markdown" ref={ref} />;
}

/** The answer under way: at most one change for each frame, whatever comes. */
export function LiveMessage() {
  const ref = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!ref.current) return;
    const view = new GrowingMarkdown(ref.current);
    let frame = 0;
    const stopWatching = effect(() => {
      void liveText.value;
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        view.update(liveText.peek());
      });
    });
    return () => {
      stopWatching();
      cancelAnimationFrame(frame);
    };
  }, []);
  return (
    <li class="message assistant busy" aria-busy="true">
      <div class="who">Answering</div>
      <div class="text markdown" ref={ref} />
      <RunningStatus />
    </li>
  );
}

function RunningStatus() {
  const now = running.value;
  if (!now) return null;
  return <div class="foot status">{statusWords(now)}</div>;
}

function statusWords(now: NonNullable<typeof running.value>) {
  if (now.state === "answering") {
    const seconds = (performance.now() - now.startedMs - (now.firstTokenMs ?? 0)) / 1000;
    const speed = seconds > 0.2 ? `${rate((now.numChunks - 1) / seconds)} tokens/s · ` : "";
    return `${speed}first token after ${milliseconds(now.firstTokenMs)}`;
  }
  if (now.state === "loading") return "The model is being loaded…";
  if (now.state === "waiting" && now.queuePosition !== null) {
    return now.queuePosition === 0 ? "Next in the queue…" : `Waiting: ${now.queuePosition} before it in the queue…`;
  }
  return now.state === "waiting" ? "Reading the prompt…" : "Sending…";
}

export function MessageItem({ message, at, isLast }: { message: Message; at: number; isLast: boolean }) {
  const isEditing = useRef(signal(false)).current;
  if (message.role === "user" && isEditing.value) {
    return <EditForm message={message} at={at} onClose={() => (isEditing.value = false)} />;
  }
  return (
    <li class={`message ${message.role}`}>
      <div class="who">{message.role === "user" ? "You" : nameOf(message.model)}</div>
      {message.role === "user" ? <div class="text">{message.content}</div> : <Markdown text={message.content} />}
      {message.role === "user" && message.error && <p class="note bad">Not answered: {message.error}</p>}
      <div class="foot">
        <Buttons message={message} isLast={isLast} onEdit={() => (isEditing.value = true)} />
        {message.role === "assistant" && <FiguresLine message={message} />}
      </div>
    </li>
  );
}

function nameOf(id: string | null): string {
  return models.value.find((card) => card.id === id)?.display_name ?? id ?? "Model";
}

function Buttons({ message, isLast, onEdit }: { message: Message; isLast: boolean; onEdit: () => void }) {
  return (
    <span class="tools">
      <CopyButton text={message.content} />
      {message.role === "user" && (
        <button type="button" class="plain" title="Edit and start again from here" disabled={isBusy.value} onClick={onEdit}>
          <Icon name="edit" />
          <span class="hidden">Edit and start again from here</span>
        </button>
      )}
      {message.role === "assistant" && isLast && (
        <button type="button" class="plain" title="Answer again" disabled={isBusy.value} onClick={() => void regenerate()}>
          <Icon name="again" />
          <span class="hidden">Answer again</span>
        </button>
      )}
    </span>
  );
}

function CopyButton({ text }: { text: string }) {
  const [state, setState] = useState<"idle" | "done" | "failed">("idle");
  const copy = async () => {
    setState((await copyText(text)) ? "done" : "failed");
    setTimeout(() => setState("idle"), 1500);
  };
  const label = { idle: "Copy", done: "Copied", failed: "Copying failed" }[state];
  return (
    <button type="button" class="plain" title={label} onClick={() => void copy()}>
      <Icon name={state === "done" ? "check" : "copy"} />
      <span class="hidden">{label}</span>
    </button>
  );
}

const ENDINGS: Record<string, string> = {
  length: "cut at the token limit",
  cancelled: "stopped",
  error: "broken off",
};

function FiguresLine({ message }: { message: Message }) {
  const figures = message.figures;
  const ending = message.finishReason ? ENDINGS[message.finishReason] : undefined;
  const parts = figures
    ? [
        `${count(figures.tokens)} tokens`,
        figures.tokensPerS === null ? null : `${rate(figures.tokensPerS)} tokens/s`,
        figures.firstTokenMs === null ? null : `first after ${milliseconds(figures.firstTokenMs)}`,
        figures.cachedTokens ? `${count(figures.cachedTokens)} of ${count(figures.promptTokens)} cached` : null,
      ]
    : [];
  return (
    <span class="figures">
      {[...parts, ending].filter(Boolean).join(" · ")}
      {figures && (
        <a class="why" href={whyLink(figures.requestId)}>
          Why?
        </a>
      )}
    </span>
  );
}

function EditForm({ message, at, onClose }: { message: Message; at: number; onClose: () => void }) {
  const [text, setText] = useState(message.content);
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => area.current?.focus(), []);
  const save = (event: Event) => {
    event.preventDefault();
    if (!text.trim() || isBusy.value) return;
    onClose();
    void restart(at, text.trim());
  };
  const onKeyDown = (event: KeyboardEvent) => {
    if (event.key === "Escape") {
      event.stopPropagation();
      onClose();
    }
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) save(event);
  };
  return (
    <li class="message user editing">
      <form onSubmit={save}>
        <label class="hidden" for="edited">
          Edit message
        </label>
        <textarea
          id="edited"
          rows={Math.min(10, text.split("\n").length + 1)}
          value={text}
          ref={area}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={onKeyDown}
        />
        <p class="note quiet">What came after this message is removed.</p>
        <p class="buttons">
          <button type="button" onClick={onClose}>
            Cancel
          </button>
          <button type="submit" class="primary">
            Send
          </button>
        </p>
      </form>
    </li>
  );
}

// The conversation and the place to write in.
import { effect } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { isBusy, isOpening, liveText, messages, problem, send, title } from "./chat";
import { copyCodeOnClick } from "./clipboard";
import { Composer } from "./composer";
import { isKept } from "./conversations";
import { LiveMessage, MessageItem } from "./message";
import { model } from "./models";

const NEAR_END_PX = 120;
const IDEAS = ["What can you do?", "What is a KV cache?", "Tell me a short story about a fox.", "Tell me a joke."];

export function ChatView() {
  const scroller = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = scroller.current;
    if (!element) return;
    copyCodeOnClick(element);
    let isFollowing = true;
    const onScroll = () => {
      isFollowing = element.scrollHeight - element.scrollTop - element.clientHeight < NEAR_END_PX;
    };
    element.addEventListener("scroll", onScroll, { passive: true });
    // Whatever grows, the end stays in sight until the reader scrolls away from it.
    const observer = new ResizeObserver(() => {
      if (isFollowing) element.scrollTop = element.scrollHeight;
    });
    if (element.firstElementChild) observer.observe(element.firstElementChild);
    const stopWatching = effect(() => {
      void messages.value;
      if (!liveText.peek()) isFollowing = true;
    });
    return () => {
      observer.disconnect();
      stopWatching();
    };
  }, []);
  const all = messages.value;
  const isEmpty = all.length === 0 && !isBusy.value;
  return (
    <main class="chat-view" id="view" tabIndex={-1}>
      <h2 class="hidden">{title.value ?? "New chat"}</h2>
      <div class="scroller" ref={scroller} tabIndex={-1}>
        <div class="column">
          {isEmpty && !isOpening.value && !problem.value && <Welcome />}
          <ol class="messages" aria-label="Conversation">
            {all.map((message, at) => (
              <MessageItem key={message.id ?? `new-${at}`} message={message} at={at} isLast={at === all.length - 1} />
            ))}
            {isBusy.value && <LiveMessage />}
          </ol>
          {problem.value && (
            <p class="problem" role="alert">
              {problem.value}
            </p>
          )}
        </div>
      </div>
      <Composer />
    </main>
  );
}

function Welcome() {
  const isBase = model.value?.kind === "base";
  return (
    <div class="welcome">
      <p class="mark" aria-hidden="true">
        <img src="/assets/icon.svg" alt="" width="56" height="56" />
      </p>
      <h3>{isBase ? "A base model continues what you write" : "What would you like to know?"}</h3>
      {!isKept.value && <p class="quiet">This server keeps no conversations: this chat lasts as long as the page.</p>}
      {!isBase && (
        <ul class="ideas" aria-label="Things to ask">
          {IDEAS.map((idea) => (
            <li key={idea}>
              <button type="button" onClick={() => void send(idea)}>
                {idea}
              </button>
            </li>
          ))}
        </ul>
      )}
    </div>
  );
}

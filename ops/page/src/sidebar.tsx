// The kept conversations beside everything else: begin, find, rename, save, load, remove.
import { effect, signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { announce } from "./announce";
import { told } from "./api";
import { clear, conversationId, open, problem } from "./chat";
import * as kept from "./conversations";
import { askUser } from "./dialogs";
import { dayOf } from "./format";
import { Icon } from "./icons";
import { chatLink, go, place } from "./router";
import type { Conversation } from "./wire";

const SEARCH_PAUSE_MS = 200;

/** On narrow screens, where it lies over the view. */
export const isSidebarOpen = signal(false);

const openMenu = signal<string | null>(null);

export function newChat(): void {
  isSidebarOpen.value = false;
  if (conversationId.value === null) void open(null); // the address stays as it is
  go(chatLink(null));
  document.getElementById("prompt")?.focus();
}

export function focusSearch(): void {
  isSidebarOpen.value = matchMedia("(max-width: 56rem)").matches;
  // Shown with the next frame.
  requestAnimationFrame(() => document.getElementById("search")?.focus());
}

export function Sidebar() {
  useEffect(() => {
    let timer = 0;
    return effect(() => {
      void kept.search.value;
      clearTimeout(timer);
      timer = window.setTimeout(() => void kept.refreshConversations(), SEARCH_PAUSE_MS);
    });
  }, []);
  return (
    <aside class={isSidebarOpen.value ? "sidebar open" : "sidebar"} aria-label="Conversations">
      <div class="side-top">
        <button type="button" class="new-chat" title="New chat (Ctrl+Shift+O)" onClick={newChat}>
          <Icon name="plus" /> New chat
        </button>
        <ImportButton />
      </div>
      {kept.isKept.value ? (
        <>
          <label class="search">
            <Icon name="search" />
            <span class="hidden">Search conversations</span>
            <input
              id="search"
              type="search"
              placeholder="Search"
              maxLength={200}
              value={kept.search.value}
              onInput={(event) => (kept.search.value = event.currentTarget.value)}
            />
          </label>
          <List />
        </>
      ) : (
        <p class="quiet pad">This server keeps no conversations.</p>
      )}
    </aside>
  );
}

function List() {
  const all = kept.conversations.value;
  if (all.length === 0) {
    return <p class="quiet pad">{kept.search.value ? "Nothing is found." : "Conversations will be listed here."}</p>;
  }
  return (
    <nav class="conversations" aria-label="Kept conversations">
      <ul>
        {all.map((one, index) => {
          const day = dayOf(one.updated_at);
          const before = all[index - 1];
          return (
            <>
              {(!before || dayOf(before.updated_at) !== day) && (
                <li key={day} class="day">
                  {day}
                </li>
              )}
              <Entry key={one.id} one={one} />
            </>
          );
        })}
      </ul>
      {kept.hasMore.value && (
        <button type="button" class="plain wide" onClick={() => void kept.loadMore()}>
          Show more
        </button>
      )}
    </nav>
  );
}

function Entry({ one }: { one: Conversation }) {
  const isCurrent = place.value.view === "chat" && conversationId.value === one.id;
  const isOpen = openMenu.value === one.id;
  const name = one.title ?? "Untitled";
  return (
    <li class={isCurrent ? "entry current" : "entry"}>
      <a href={chatLink(one.id)} aria-current={isCurrent ? "page" : undefined} onClick={() => (isSidebarOpen.value = false)}>
        {name}
      </a>
      <button
        type="button"
        class="plain"
        aria-label={`Actions for ${name}`}
        aria-haspopup="menu"
        aria-expanded={isOpen}
        onClick={() => (openMenu.value = isOpen ? null : one.id)}
      >
        <Icon name="more" />
      </button>
      {isOpen && <Menu one={one} name={name} />}
    </li>
  );
}

/** A menu of the kind that assistive technology knows: arrows move, Escape goes back to its button. */
function Menu({ one, name }: { one: Conversation; name: string }) {
  const ref = useRef<HTMLDivElement>(null);
  const close = () => (openMenu.value = null);
  useEffect(() => {
    const button = ref.current?.previousElementSibling as HTMLElement | null;
    ref.current?.querySelector("button")?.focus();
    const onPointer = (event: PointerEvent) => {
      const target = event.target as Node;
      if (!ref.current?.contains(target) && !button?.contains(target)) close();
    };
    document.addEventListener("pointerdown", onPointer);
    return () => document.removeEventListener("pointerdown", onPointer);
  }, []);
  const onKeyDown = (event: KeyboardEvent) => {
    const items = [...(ref.current?.querySelectorAll("button") ?? [])];
    const at = items.indexOf(document.activeElement as HTMLButtonElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) {
      event.preventDefault();
      items[(at + step + items.length) % items.length]?.focus();
    }
    if (event.key === "Escape") {
      event.stopPropagation();
      const button = ref.current?.previousElementSibling as HTMLElement | null;
      close();
      button?.focus();
    }
    if (event.key === "Tab") close();
  };
  const item = (label: string, action: () => void, name = "") => (
    <button
      type="button"
      role="menuitem"
      class={name}
      onClick={() => {
        close();
        action();
      }}
    >
      {label}
    </button>
  );
  return (
    <div class="menu" role="menu" aria-label={`Actions for ${name}`} ref={ref} onKeyDown={onKeyDown}>
      {item("Rename", () => renameOne(one))}
      {item("Export", () => void kept.exportOne(one.id).catch(tell))}
      {conversationId.value === one.id && item("Clear", () => clearOne(name))}
      {item("Delete", () => deleteOne(one, name), "danger-text")}
    </div>
  );
}

function tell(error: unknown): void {
  problem.value = told(error);
}

function renameOne(one: Conversation): void {
  askUser({
    title: "Rename conversation",
    text: "Title",
    action: "Rename",
    value: one.title ?? "",
    onYes: (title) => void kept.change(one.id, { title: title.trim() }).catch(tell),
  });
}

function clearOne(name: string): void {
  askUser({
    title: "Clear conversation",
    text: `All messages of “${name}” are removed; its title and settings stay.`,
    action: "Clear",
    onYes: () => void clear(),
  });
}

function deleteOne(one: Conversation, name: string): void {
  askUser({
    title: "Delete conversation",
    text: `“${name}” is removed with all its messages.`,
    action: "Delete",
    onYes: () => {
      kept.remove(one.id).then(() => {
        announce("Conversation deleted");
        if (conversationId.value === one.id) go(chatLink(null));
      }, tell);
    },
  });
}

function ImportButton() {
  const input = useRef<HTMLInputElement>(null);
  const take = async () => {
    const file = input.current?.files?.[0];
    if (!file) return;
    try {
      go(chatLink((await kept.importFile(file)).id));
      announce("Conversation imported");
    } catch (error) {
      tell(error);
    }
    if (input.current) input.current.value = "";
  };
  if (!kept.isKept.value) return null;
  return (
    <>
      <input
        id="import-file"
        ref={input}
        type="file"
        accept="application/json,.json"
        class="hidden"
        tabIndex={-1}
        aria-label="Conversation file"
        onChange={() => void take()}
      />
      <button type="button" title="Import a conversation" onClick={() => input.current?.click()}>
        <Icon name="upload" />
        <span class="hidden">Import a conversation</span>
      </button>
    </>
  );
}

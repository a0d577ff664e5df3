// Keys that work everywhere on the page.
import { isBusy, conversationId, stop } from "./chat";
import { LIVE_LINK, chatLink, go, whyLink } from "./router";
import { areSettingsOpen } from "./settings_panel";
import { focusSearch, isSidebarOpen, newChat } from "./sidebar";

export function listenToKeys(): void {
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
      if (isSidebarOpen.value) isSidebarOpen.value = false;
      else if (isBusy.value) stop();
      return;
    }
    const action = actionOf(event);
    if (!action || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    action();
  });
}

function actionOf(event: KeyboardEvent): (() => void) | null {
  const isCommand = event.ctrlKey || event.metaKey;
  if (isCommand && event.shiftKey && event.code === "KeyO") return newChat;
  if (isCommand && !event.shiftKey && event.code === "KeyK") return search;
  if (isCommand && event.key === ",") return () => (areSettingsOpen.value = true);
  if (event.altKey && event.code === "Digit1") return () => go(chatLink(conversationId.value));
  if (event.altKey && event.code === "Digit2") return () => go(whyLink());
  if (event.altKey && event.code === "Digit3") return () => go(LIVE_LINK);
  return null;
}

function search(): void {
  go(chatLink(conversationId.value));
  focusSearch();
}

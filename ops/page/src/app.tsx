// The whole page: bar, conversations, the view that the address names, dialogs, and what the screen reader hears.
import { useEffect } from "preact/hooks";
import { announcement } from "./announce";
import { ChatView } from "./chat_view";
import { KeyDialog, QuestionDialog } from "./dialogs";
import { Header } from "./header";
import { LiveView } from "./live_view";
import { place } from "./router";
import { SettingsPanel } from "./settings_panel";
import { Sidebar, isSidebarOpen } from "./sidebar";
import { begin } from "./startup";
import { WhyView } from "./why_view";

export function App() {
  const view = place.value.view;
  useEffect(() => {
    isSidebarOpen.value = false;
  }, [view]);
  return (
    <>
      <a class="skip" href="#view" onClick={skipToView}>
        To the content
      </a>
      <Header />
      <div class={`body ${view}`}>
        {view === "chat" && <Sidebar />}
        {view === "chat" && isSidebarOpen.value && <div class="veil" onClick={() => (isSidebarOpen.value = false)} />}
        {view === "chat" && <ChatView />}
        {view === "why" && <WhyView />}
        {view === "live" && <LiveView />}
      </div>
      <SettingsPanel />
      <QuestionDialog />
      <KeyDialog onChange={begin} />
      <p class="hidden" role="status" aria-live="polite">
        {announcement.value}
      </p>
    </>
  );
}

/** The address belongs to the views: the focus moves without it. */
function skipToView(event: Event): void {
  event.preventDefault();
  document.getElementById("view")?.focus();
}

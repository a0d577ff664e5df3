// The bar at the top: which model, which view, and the page's own switches.
import { conversationId } from "./chat";
import { Icon, type IconName } from "./icons";
import { ModelButton } from "./model_picker";
import { LIVE_LINK, chatLink, place, whyLink } from "./router";
import { areSettingsOpen } from "./settings_panel";
import { isSidebarOpen } from "./sidebar";
import { colours, isDark, toggleTheme } from "./theme";

export function Header() {
  const view = place.value.view;
  void colours.value;
  return (
    <header class="top">
      {view === "chat" && (
        <button
          type="button"
          class="plain only-narrow"
          aria-label="Conversations"
          aria-expanded={isSidebarOpen.value}
          onClick={() => (isSidebarOpen.value = !isSidebarOpen.value)}
        >
          <Icon name="menu" />
        </button>
      )}
      <h1>
        <img src="/assets/icon.svg" alt="" width="22" height="22" />
        <span>Quire</span>
      </h1>
      <ModelButton />
      <nav class="views" aria-label="Views">
        <Tab icon="chat" label="Chat" link={chatLink(conversationId.value)} isCurrent={view === "chat"} />
        <Tab icon="clock" label="Why" link={whyLink()} isCurrent={view === "why"} />
        <Tab icon="live" label="Live" link={LIVE_LINK} isCurrent={view === "live"} />
        <a href="/docs" class="api-link">
          API
        </a>
      </nav>
      <span class="switches">
        <button type="button" class="plain" title="Settings (Ctrl+,)" onClick={() => (areSettingsOpen.value = true)}>
          <Icon name="settings" />
          <span class="hidden">Settings</span>
        </button>
        <button type="button" class="plain" title={isDark() ? "Light colours" : "Dark colours"} onClick={toggleTheme}>
          <Icon name="theme" />
          <span class="hidden">{isDark() ? "Light colours" : "Dark colours"}</span>
        </button>
      </span>
    </header>
  );
}

function Tab({ icon, label, link, isCurrent }: { icon: IconName; label: string; link: string; isCurrent: boolean }) {
  return (
    <a href={link} class="tab" aria-current={isCurrent ? "page" : undefined}>
      <Icon name={icon} />
      <span>{label}</span>
    </a>
  );
}

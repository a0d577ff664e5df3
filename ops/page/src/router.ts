// Which view is shown, from the part of the address behind #, so that every view can be linked to and survives a reload.
import { computed, signal } from "@preact/signals";

export type Place =
  | { view: "chat"; conversationId: string | null }
  | { view: "why"; requestId: string | null }
  | { view: "live" };

const hash = signal(location.hash);
addEventListener("hashchange", () => (hash.value = location.hash));

export const place = computed<Place>(() => {
  const [name, id] = hash.value.replace(/^#\/?/, "").split("/");
  const given = id ? decodeURIComponent(id) : null;
  if (name === "why") return { view: "why", requestId: given };
  if (name === "live") return { view: "live" };
  return { view: "chat", conversationId: name === "c" ? given : null };
});

export const chatLink = (conversationId: string | null) =>
  conversationId ? `#/c/${encodeURIComponent(conversationId)}` : "#/";
export const whyLink = (requestId?: string) => (requestId ? `#/why/${encodeURIComponent(requestId)}` : "#/why");
export const LIVE_LINK = "#/live";

export function go(link: string): void {
  location.hash = link;
}

/** Change the address without a new entry in the history: a new chat has got its id. */
export function rename(link: string): void {
  history.replaceState(null, "", link);
  hash.value = link;
}

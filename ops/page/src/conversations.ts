// The kept conversations: the list, its search, and everything that is done to one of them as a whole.
import { signal } from "@preact/signals";
import { ApiError, call, getJson, sendJson } from "./api";
import type { Conversation, ConversationDetail } from "./wire";

const PAGE_SIZE = 40;

export const conversations = signal<Conversation[]>([]);
export const hasMore = signal(false);
export const search = signal("");

/** False where the server keeps none: a chat then lasts as long as the page. */
export const isKept = signal(true);

let listing = 0;

/** The first page of what the search finds; an answer that a later one has overtaken is dropped. */
export async function refreshConversations(): Promise<void> {
  const number = ++listing;
  const page = await fetchPage(null);
  if (number !== listing || page === null) return;
  conversations.value = page.data;
  hasMore.value = page.has_more;
}

export async function loadMore(): Promise<void> {
  const last = conversations.value.at(-1);
  if (!last) return;
  const number = listing;
  const page = await fetchPage(last.id);
  if (number !== listing || page === null) return;
  conversations.value = [...conversations.value, ...page.data];
  hasMore.value = page.has_more;
}

async function fetchPage(after: string | null): Promise<{ data: Conversation[]; has_more: boolean } | null> {
  const query = new URLSearchParams({ limit: String(PAGE_SIZE) });
  if (search.value.trim()) query.set("q", search.value.trim().slice(0, 200));
  if (after) query.set("after", after);
  try {
    const page = await getJson<{ data: Conversation[]; has_more: boolean }>(`/v1/conversations?${query}`);
    isKept.value = true;
    return page;
  } catch (error) {
    if (error instanceof ApiError && error.code === "conversations_off") isKept.value = false;
    return null;
  }
}

const path = (id: string) => `/v1/conversations/${encodeURIComponent(id)}`;

export const create = (options: { system_prompt?: string; model?: string }) =>
  sendJson<Conversation>("POST", "/v1/conversations", options);

export const read = (id: string) => getJson<ConversationDetail>(path(id));

/** Remove a message and all behind it. */
export const cut = (id: string, messageId: string) =>
  sendJson<ConversationDetail>("DELETE", `${path(id)}/messages/${encodeURIComponent(messageId)}`);

export async function change(
  id: string,
  values: { title?: string; system_prompt?: string | null; model?: string },
): Promise<Conversation> {
  const changed = await sendJson<Conversation>("PATCH", path(id), values);
  conversations.value = conversations.value.map((one) => (one.id === id ? { ...one, ...changed } : one));
  return changed;
}

export async function remove(id: string): Promise<void> {
  await sendJson("DELETE", path(id));
  conversations.value = conversations.value.filter((one) => one.id !== id);
}

/** Save it as the file that `importFile`, the command line and POST /v1/conversations/import take. */
export async function exportOne(id: string): Promise<void> {
  const response = await call(`${path(id)}/export`);
  download(await response.blob(), `${id}.json`);
}

/** The new conversation; the file's text goes to the server as it is, which says what is wrong with it. */
export async function importFile(file: File): Promise<Conversation> {
  const imported = await sendJson<Conversation>("POST", "/v1/conversations/import", await file.text());
  await refreshConversations();
  return imported;
}

export function download(content: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

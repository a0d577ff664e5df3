// Where the time of a request went: the server's own account of it, in sentences and as a timeline.
import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { getJson, sendJson, told } from "./api";
import { copyText } from "./clipboard";
import { clock, count, milliseconds } from "./format";
import { Icon } from "./icons";
import { place, whyLink } from "./router";
import { Waterfall } from "./waterfall";
import type { Explanation } from "./wire";

const LIST_EVERY_MS = 2000;
const LIVE_EVERY_MS = 500;

type Order = "newest" | "slowest";

const order = signal<Order>("newest");
const list = signal<Explanation[]>([]);
const shown = signal<Explanation | null>(null);
const problem = signal<string | null>(null);

export function WhyView() {
  const here = place.value;
  const requestId = here.view === "why" ? here.requestId : null;
  useEffect(() => repeat(LIST_EVERY_MS, loadList), [order.value]);
  useEffect(() => {
    shown.value = null;
    problem.value = null;
    if (requestId === null) return;
    return repeat(LIVE_EVERY_MS, () => loadOne(requestId));
  }, [requestId]);
  return (
    <main class="why-view" id="view" tabIndex={-1}>
      <section class="requests" aria-label="Last requests">
        <div class="bar">
          <h2>Requests</h2>
          <label>
            <span class="hidden">Order</span>
            <select value={order.value} onChange={(event) => (order.value = event.currentTarget.value as Order)}>
              <option value="newest">Newest first</option>
              <option value="slowest">Slowest first</option>
            </select>
          </label>
        </div>
        {list.value.length === 0 && <p class="quiet pad">No request is remembered yet.</p>}
        <ul>
          {list.value.map((one) => (
            <RequestEntry key={one.id} one={one} isCurrent={isNamed(one, requestId)} />
          ))}
        </ul>
      </section>
      <section class="explained" aria-label="Explanation">
        {problem.value && (
          <p class="problem" role="alert">
            {problem.value}
          </p>
        )}
        {shown.value ? <Explained one={shown.value} /> : !problem.value && <Invitation />}
      </section>
    </main>
  );
}

/** Call now and then until the function returned is called, or the work says that it is done. */
function repeat(everyMs: number, work: () => Promise<boolean>): () => void {
  let isOver = false;
  let timer = 0;
  const turn = async () => {
    const isDone = document.visibilityState === "visible" && (await work());
    if (!isOver && !isDone) timer = window.setTimeout(turn, everyMs);
  };
  void turn();
  return () => {
    isOver = true;
    clearTimeout(timer);
  };
}

async function loadList(): Promise<boolean> {
  const found = await getJson<{ data: Explanation[] }>(`/v1/requests?limit=50&order=${order.value}`).catch(() => null);
  if (found) list.value = found.data;
  return false;
}

/** True when nothing about it will change any more. */
async function loadOne(requestId: string): Promise<boolean> {
  try {
    const found = await getJson<Explanation>(`/v1/requests/${encodeURIComponent(requestId)}`);
    const here = place.value;
    if (here.view !== "why" || here.requestId !== requestId) return true;
    shown.value = found;
    problem.value = null;
    return found.status !== "queued" && found.status !== "running";
  } catch (error) {
    problem.value = told(error);
    return true;
  }
}

function isNamed(one: Explanation, requestId: string | null): boolean {
  return requestId !== null && [one.id, one.request_id, one.trace_id].includes(requestId);
}

function RequestEntry({ one, isCurrent }: { one: Explanation; isCurrent: boolean }) {
  return (
    <li class={isCurrent ? "current" : ""}>
      <a href={whyLink(one.id)} aria-current={isCurrent ? "true" : undefined}>
        <span class="line">
          <span class={`state ${one.status}`}>{one.status}</span>
          <span>{milliseconds(one.total_ms)}</span>
          <time class="quiet">{clock(one.submitted)}</time>
        </span>
        <span class="line quiet">
          <span class="cause">{one.main_cause}</span>
          <span>
            {count(one.prompt_tokens)} → {count(one.completion_tokens)}
          </span>
        </span>
      </a>
    </li>
  );
}

function Invitation() {
  return <p class="quiet pad">Choose a request to see where its time went. “Why?” below an answer leads here too.</p>;
}

function Explained({ one }: { one: Explanation }) {
  const [summary, ...rest] = one.sentences;
  const isOver = one.status !== "queued" && one.status !== "running";
  return (
    <>
      <div class="bar">
        <h2>
          <span class={`state ${one.status}`}>{one.status}</span> {one.model}
        </h2>
        <span class="actions">
          {!isOver && (
            <button type="button" class="danger" onClick={() => void cancel(one)}>
              Cancel
            </button>
          )}
          {one.trace_url && (
            <a class="button" href={one.trace_url} target="_blank" rel="noopener noreferrer">
              <Icon name="link" /> Trace in Jaeger
            </a>
          )}
          <a class="button" href={`/v1/requests/${encodeURIComponent(one.id)}/timeline`} target="_blank" rel="noopener">
            Text
          </a>
        </span>
      </div>
      <dl class="tiles">
        <Tile label="Total" value={milliseconds(one.total_ms)} />
        <Tile label="In the queue" value={milliseconds(one.queue_ms)} />
        <Tile label="First token" value={milliseconds(one.ttft_ms)} />
        <Tile label="Decoding" value={milliseconds(one.decode_ms)} />
        <Tile label="Prompt" value={count(one.prompt_tokens)} more={one.cached_tokens ? `${count(one.cached_tokens)} cached` : ""} />
        <Tile label="Generated" value={count(one.completion_tokens)} more={one.finish_reason ?? ""} />
        {one.queue_position !== null && <Tile label="Before it" value={count(one.queue_position)} />}
        {one.preemptions > 0 && <Tile label="Preemptions" value={count(one.preemptions)} />}
      </dl>
      <p class="summary">{summary}</p>
      <Waterfall phases={one.phases} totalMs={one.total_ms} />
      {rest.length > 0 && (
        <ul class="sentences">
          {rest.map((sentence) => (
            <li key={sentence}>{sentence}</li>
          ))}
        </ul>
      )}
      <dl class="ids">
        <Id label="Reply" value={one.id} />
        <Id label="Request" value={one.request_id} />
        {one.trace_id && <Id label="Trace" value={one.trace_id} />}
      </dl>
    </>
  );
}

async function cancel(one: Explanation): Promise<void> {
  try {
    shown.value = await sendJson<Explanation>("DELETE", `/v1/requests/${encodeURIComponent(one.id)}`);
  } catch (error) {
    problem.value = told(error);
  }
}

function Tile({ label, value, more = "" }: { label: string; value: string; more?: string }) {
  return (
    <div class="tile">
      <dt>{label}</dt>
      <dd>
        {value}
        {more && <small>{more}</small>}
      </dd>
    </div>
  );
}

function Id({ label, value }: { label: string; value: string }) {
  return (
    <div>
      <dt>{label}</dt>
      <dd>
        <code>{value}</code>
        <button type="button" class="plain" onClick={() => void copyText(value)}>
          <Icon name="copy" />
          <span class="hidden">Copy the id of the {label.toLowerCase()}</span>
        </button>
      </dd>
    </div>
  );
}

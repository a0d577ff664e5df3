// The engine at work: its blocks, its batch, its queue and its last minute.
import { effect, signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { apiKey, keyProblem } from "./api";
import { BlockMap, colourOf } from "./block_map";
import { Chart, type Line } from "./charts";
import { count, milliseconds, plural, rate } from "./format";
import { Icon } from "./icons";
import * as live from "./live";
import { models } from "./models";
import { whyLink } from "./router";
import { colours, isDark } from "./theme";
import type { LiveRow, LiveView as Frame, LiveWaiting } from "./wire";

const LEAVING_S = 0.8;
const ENTERING_S = 0.8;
const MAX_QUEUE_SHOWN = 12;

const watched = signal("");
const highlighted = signal<number | null>(null);

export function LiveView() {
  useEffect(() => live.watchEngine(watched.value), [watched.value, apiKey.value]);
  const frame = live.shownFrame.value;
  return (
    <main class="live-view" id="view" tabIndex={-1}>
      <div class="bar">
        <h2>Live</h2>
        <ModelChoice />
        <Scrubber />
      </div>
      {live.feedProblem.value && (
        <p class="problem" role="alert">
          {live.feedProblem.value}
        </p>
      )}
      {live.needsKey.value && (
        <p>
          <button type="button" onClick={() => (keyProblem.value = live.feedProblem.value)}>
            <Icon name="key" /> Use another key
          </button>
        </p>
      )}
      {frame ? <Engine frame={frame} /> : !live.feedProblem.value && <p class="quiet pad">Waiting for the engine…</p>}
    </main>
  );
}

function ModelChoice() {
  const loaded = models.value.filter((card) => card.state === "ready");
  if (loaded.length < 2) return <span class="quiet">{loaded[0]?.display_name}</span>;
  return (
    <label>
      <span class="hidden">Model</span>
      <select value={watched.value} onChange={(event) => (watched.value = event.currentTarget.value)}>
        <option value="">Default model</option>
        {loaded.map((card) => (
          <option key={card.id} value={card.id}>
            {card.display_name}
          </option>
        ))}
      </select>
    </label>
  );
}

const FEED_WORDS = { connecting: "Connecting…", open: "Live", lost: "Reconnecting…" };

function Scrubber() {
  const all = live.frames.value;
  const index = live.shownIndex.value;
  const newest = all.at(-1);
  const frame = all[index];
  const behindS = newest && frame ? newest.at - frame.at : 0;
  const words = live.isPaused.value ? `${behindS.toFixed(1)} s before the pause` : FEED_WORDS[live.feedState.value];
  return (
    <div class="scrubber">
      <button type="button" aria-pressed={live.isPaused.value} onClick={live.togglePause}>
        <Icon name={live.isPaused.value ? "play" : "pause"} /> {live.isPaused.value ? "Go on" : "Pause"}
      </button>
      <input
        type="range"
        aria-label="The last minute"
        aria-valuetext={words}
        min={0}
        max={Math.max(0, all.length - 1)}
        value={index}
        disabled={all.length < 2}
        onInput={(event) => live.scrubTo(Number(event.currentTarget.value))}
      />
      <span class={live.isPaused.value ? "when held" : "when"}>{words}</span>
    </div>
  );
}

function Engine({ frame }: { frame: Frame }) {
  const held = frame.num_blocks - frame.num_free_blocks;
  const all = live.series.value;
  const at = live.shownIndex.value;
  return (
    <>
      <dl class="tiles">
        <Tile label="Running" value={count(frame.running.length)} more={`of ${count(frame.max_num_seqs)}`} />
        <Tile label="Waiting" value={count(frame.num_waiting)} />
        <Tile label="Generated" value={`${rate(all.generated[at])}/s`} />
        <Tile label="Prompt" value={`${rate(all.prompt[at])}/s`} />
        <Tile label="Step" value={milliseconds(all.stepMs[at])} />
        <Tile label="Blocks held" value={count(held)} more={`of ${count(frame.num_blocks)}`} />
      </dl>
      <section class="card" aria-labelledby="blocks-title">
        <h3 id="blocks-title">KV blocks</h3>
        <Blocks frame={frame} />
      </section>
      <div class="columns">
        <section class="card" aria-labelledby="batch-title">
          <h3 id="batch-title">Batch</h3>
          <Batch frame={frame} />
        </section>
        <section class="card" aria-labelledby="queue-title">
          <h3 id="queue-title">Queue</h3>
          <Queue frame={frame} />
        </section>
      </div>
      <Charts />
    </>
  );
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

function Blocks({ frame }: { frame: Frame }) {
  const numDrawn = useSignal(0);
  const canvas = useRef<HTMLCanvasElement>(null);
  useEffect(() => {
    const element = canvas.current;
    if (!element?.parentElement) return;
    const map = new BlockMap(element);
    let drawnFor = "";
    const size = signal(0);
    const observer = new ResizeObserver(() => (size.value += 1));
    observer.observe(element.parentElement);
    const stopDrawing = effect(() => {
      const shown = live.shownFrame.value;
      const wanted = `${size.value}/${colours.value}`;
      if (shown) map.draw(shown, highlighted.value, isDark(), drawnFor !== wanted);
      drawnFor = wanted;
      numDrawn.value = map.length;
    });
    return () => {
      stopDrawing();
      observer.disconnect();
    };
  }, []);
  const numShared = frame.shared.reduce((sum, value, index) => sum + (index % 2 ? value : 0), 0);
  const held = frame.num_blocks - frame.num_free_blocks;
  const words =
    `${count(held)} of ${count(frame.num_blocks)} blocks are held by ${plural(frame.running.length, "sequence")}, ` +
    `${count(numShared)} of them shared; ${count(frame.num_cached_blocks)} free ones can be found again.`;
  return (
    <>
      <div class="blocks">
        <canvas ref={canvas} role="img" aria-label={words} />
      </div>
      <ul class="legend">
        <li>
          <span class="swatch held" /> held, a colour for each sequence
        </li>
        <li>
          <span class="swatch shared" /> shared prefix ({count(numShared)})
        </li>
        <li>
          <span class="swatch cached" /> cached ({count(frame.num_cached_blocks)})
        </li>
        <li>
          <span class="swatch empty" /> empty
        </li>
        <li class="quiet">one block is {plural(frame.block_size, "token")}</li>
        {numDrawn.value < frame.num_blocks && <li class="quiet">the first {count(numDrawn.value)} are drawn</li>}
      </ul>
    </>
  );
}

function Batch({ frame }: { frame: Frame }) {
  void colours.value;
  const left = live.leftSince(live.frames.value, live.shownIndex.value, LEAVING_S);
  if (frame.running.length === 0 && left.length === 0) return <p class="quiet">Nothing runs.</p>;
  const hasKeys = frame.running.some((row) => row.key);
  return (
    <div class="table-frame batch" tabIndex={0}>
      <table>
        <thead>
          <tr>
            <th scope="col">Request</th>
            {hasKeys && <th scope="col">Key</th>}
            <th scope="col">Phase</th>
            <th scope="col" class="wide">
              Tokens
            </th>
            <th scope="col" class="number">
              Blocks
            </th>
            <th scope="col" class="number">
              Age
            </th>
          </tr>
        </thead>
        <tbody>
          {frame.running.map((row) => (
            <Row key={row.seq} row={row} hasKeys={hasKeys} state={row.age_s < ENTERING_S ? "entering" : ""} />
          ))}
          {left.map((row) => (
            <Row key={row.seq} row={row} hasKeys={hasKeys} state="leaving" />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Row({ row, hasKeys, state }: { row: LiveRow; hasKeys: boolean; state: "" | "entering" | "leaving" }) {
  const isPrefill = row.phase === "prefill";
  const goal = isPrefill ? row.prompt_tokens + row.output_tokens : row.max_tokens;
  const done = isPrefill ? row.computed_tokens : row.output_tokens;
  return (
    <tr class={state} onMouseEnter={() => (highlighted.value = row.seq)} onMouseLeave={() => (highlighted.value = null)}>
      <td>
        <span class="swatch" style={{ background: colourOf(row.seq, isDark()) }} />
        <Name row={row} />
      </td>
      {hasKeys && <td>{row.key}</td>}
      <td>
        {state === "leaving" ? "left" : row.phase}
        {row.num_preemptions > 0 && <small title="Preemptions"> ↺{row.num_preemptions}</small>}
      </td>
      <td class="wide">
        <span class={`meter ${row.phase}`} aria-hidden="true">
          <span style={{ width: `${Math.min(100, (100 * done) / Math.max(1, goal))}%` }} />
        </span>
        {isPrefill ? `${count(done)} of ${count(goal)} read` : `${count(row.prompt_tokens)} + ${count(row.output_tokens)}`}
      </td>
      <td class="number">{count(row.num_blocks)}</td>
      <td class="number">{milliseconds(row.age_s * 1000)}</td>
    </tr>
  );
}

function Name({ row }: { row: LiveRow | LiveWaiting }) {
  if (row.request === null) return <span class="quiet">of another key</span>;
  const short = row.request.replace(/^(chatcmpl|cmpl)-/, "").slice(0, 8);
  return (
    <a href={whyLink(row.request)} title={row.request}>
      {short}
      {row.sample > 0 && `#${row.sample}`}
    </a>
  );
}

function Queue({ frame }: { frame: Frame }) {
  if (frame.num_waiting === 0) return <p class="quiet">Nobody waits.</p>;
  const shown = frame.waiting.slice(0, MAX_QUEUE_SHOWN);
  return (
    <ol class="queue">
      {shown.map((row) => (
        <li key={row.seq}>
          <Name row={row} />
          <span class="quiet">
            {plural(row.prompt_tokens, "token")}
            {row.is_preempted ? ", preempted" : ""}
          </span>
          <span>{milliseconds(row.age_s * 1000)}</span>
        </li>
      ))}
      {frame.num_waiting > shown.length && <li class="quiet">and {count(frame.num_waiting - shown.length)} more</li>}
    </ol>
  );
}

function Charts() {
  const all = live.series.value;
  return (
    <div class="charts">
      <ChartCard
        title="Throughput"
        tell={(value) => count(Math.round(value))}
        lines={[
          { label: "generated tokens/s", colour: "--chart-1", values: all.generated },
          { label: "prompt tokens/s", colour: "--chart-2", values: all.prompt },
        ]}
      />
      <ChartCard
        title="Sequences"
        tell={count}
        lines={[
          { label: "running", colour: "--chart-1", values: all.running },
          { label: "waiting", colour: "--chart-3", values: all.waiting },
        ]}
      />
      <ChartCard
        title="Latency"
        tell={shortTime}
        lines={[
          { label: "first token", colour: "--chart-2", values: all.firstTokenMs },
          { label: "between tokens", colour: "--chart-1", values: all.betweenTokensMs },
          { label: "step", colour: "--chart-3", values: all.stepMs },
        ]}
      />
    </div>
  );
}

function shortTime(ms: number): string {
  return ms >= 1000 ? `${ms / 1000} s` : `${ms} ms`;
}

function ChartCard({ title, tell, lines }: { title: string; tell: (value: number) => string; lines: Line[] }) {
  const target = useRef<HTMLDivElement>(null);
  const chart = useRef<Chart | null>(null);
  useEffect(() => {
    if (!target.current) return;
    const own = (chart.current = new Chart(target.current, tell));
    let width = 0;
    const observer = new ResizeObserver(([entry]) => {
      const now = Math.round(entry?.contentRect.width ?? 0);
      if (now !== width) own.forget();
      width = now;
    });
    observer.observe(target.current);
    const stopWatching = effect(() => {
      void colours.value;
      own.forget();
    });
    return () => {
      observer.disconnect();
      stopWatching();
      own.forget();
    };
  }, []);
  const frame = live.shownFrame.value;
  const newest = live.frames.value.at(-1);
  useEffect(() => {
    const heldAt = live.isPaused.value && frame && newest ? frame.at - newest.at : null;
    chart.current?.draw(live.series.value.at, lines, heldAt);
  });
  const at = live.shownIndex.value;
  return (
    <figure class="card chart">
      <figcaption>
        <strong>{title}</strong>
        {lines.map((line) => (
          <span key={line.label}>
            <span class={`swatch line${line.colour}`} />
            {line.label} <b>{tell === shortTime ? milliseconds(line.values[at]) : tell(line.values[at] ?? 0)}</b>
          </span>
        ))}
      </figcaption>
      <div ref={target} aria-hidden="true" />
    </figure>
  );
}

// The phases of a request as bars over time, and as a table for whoever does not see bars.
import { useState } from "preact/hooks";
import { milliseconds } from "./format";
import type { Phase } from "./wire";

const MIN_SHARE = 0.004;

interface Span {
  name: string;
  sample: number;
  startMs: number;
  endMs: number;
  isOpen: boolean;
  details: Phase["details"];
}

export function Waterfall({ phases, totalMs }: { phases: Phase[]; totalMs: number }) {
  const [chosen, setChosen] = useState<number | null>(null);
  const spans = phases.map(
    (phase): Span => ({
      name: phase.name,
      sample: phase.sample,
      startMs: phase.start_ms,
      endMs: phase.end_ms ?? totalMs,
      isOpen: phase.end_ms === null,
      details: phase.details,
    }),
  );
  const wholeMs = Math.max(totalMs, ...spans.map((span) => span.endMs), 0.001);
  const hasSamples = spans.some((span) => span.sample > 0);
  const picked = chosen === null ? null : spans[chosen];
  return (
    <div class="waterfall">
      <Scale wholeMs={wholeMs} />
      <ol>
        {spans.map((span, at) => (
          <li key={at}>
            <button type="button" aria-expanded={chosen === at} onClick={() => setChosen(chosen === at ? null : at)}>
              <span class="name">
                {span.name}
                {hasSamples && <small> #{span.sample}</small>}
              </span>
              <span class="track">
                <span class={`bar-of ${span.name}${span.isOpen ? " open" : ""}`} style={placeOf(span, wholeMs)} />
              </span>
              <span class="length">{milliseconds(span.endMs - span.startMs)}</span>
            </button>
            {chosen === at && picked && <Details span={picked} />}
          </li>
        ))}
      </ol>
    </div>
  );
}

function placeOf(span: Span, wholeMs: number): { left: string; width: string } {
  const left = span.startMs / wholeMs;
  const width = Math.max(MIN_SHARE, (span.endMs - span.startMs) / wholeMs);
  return { left: `${Math.min(left, 1 - MIN_SHARE) * 100}%`, width: `${Math.min(width, 1 - Math.min(left, 1 - MIN_SHARE)) * 100}%` };
}

function Scale({ wholeMs }: { wholeMs: number }) {
  return (
    <div class="scale" aria-hidden="true">
      {[0, 0.25, 0.5, 0.75, 1].map((share) => (
        <span key={share}>{milliseconds(share * wholeMs)}</span>
      ))}
    </div>
  );
}

function Details({ span }: { span: Span }) {
  return (
    <dl class="details">
      <div>
        <dt>from</dt>
        <dd>{milliseconds(span.startMs)}</dd>
      </div>
      <div>
        <dt>to</dt>
        <dd>{span.isOpen ? "now" : milliseconds(span.endMs)}</dd>
      </div>
      {Object.entries(span.details).map(([name, value]) => (
        <div key={name}>
          <dt>{name.replaceAll("_", " ")}</dt>
          <dd>{String(value)}</dd>
        </div>
      ))}
    </dl>
  );
}

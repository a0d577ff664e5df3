// One chart of the last minute: a title, its lines, and a mark where the minute is held.
import uPlot from "uplot";
import { KEPT_S } from "./live";
import { colour } from "./theme";

export interface Line {
  label: string;
  /** Of a CSS variable. */
  colour: string;
  values: (number | null)[];
}

const HEIGHT_PX = 130;

/** The same colour, nearly transparent. */
function veil(solid: string): string {
  return solid.replace(/^rgb\((.*)\)$/, "rgba($1, .12)");
}

export class Chart {
  private plot: uPlot | null = null;
  private heldAt: number | null = null;

  constructor(
    private readonly target: HTMLElement,
    private readonly tell: (value: number) => string,
  ) {}

  draw(at: number[], lines: Line[], heldAt: number | null): void {
    this.heldAt = heldAt;
    this.plot ??= this.make(lines);
    this.plot.setData([at, ...lines.map((line) => line.values)]);
  }

  /** The next `draw` begins anew: the size or the colours have changed. */
  forget(): void {
    this.plot?.destroy();
    this.plot = null;
  }

  private make(lines: Line[]): uPlot {
    const ink = colour("--quiet");
    const axis = { stroke: ink, grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "11px system-ui" };
    const options: uPlot.Options = {
      width: Math.max(160, this.target.clientWidth),
      height: HEIGHT_PX,
      legend: { show: false },
      cursor: { show: false },
      scales: { x: { time: false, range: [-KEPT_S, 0] }, y: { range: (_plot, _low, high) => [0, Math.max(1, (high || 0) * 1.15)] } },
      axes: [
        { ...axis, size: 24, values: (_plot, ticks) => ticks.map((tick) => (tick === 0 ? "now" : `${tick} s`)) },
        { ...axis, size: 52, values: (_plot, ticks) => ticks.map(this.tell) },
      ],
      series: [
        {},
        ...lines.map((line) => ({
          label: line.label,
          stroke: colour(line.colour),
          fill: veil(colour(line.colour)),
          width: 1.5,
          spanGaps: true,
          points: { show: false },
        })),
      ],
      hooks: { draw: [(plot) => this.markHeld(plot)] },
    };
    return new uPlot(options, [[], ...lines.map(() => [])], this.target);
  }

  private markHeld(plot: uPlot): void {
    if (this.heldAt === null) return;
    const x = plot.valToPos(this.heldAt, "x", true);
    plot.ctx.fillStyle = colour("--accent");
    plot.ctx.fillRect(x - 1, plot.bbox.top, 2, plot.bbox.height);
  }
}

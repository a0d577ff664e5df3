// The KV blocks on a canvas, in the colour of the request that holds them. Only cells that have changed are drawn again.
import { colour } from "./theme";
import type { LiveView } from "./wire";

const MIN_CELL_PX = 3;
const MAX_CELL_PX = 16;
const WANTED_HEIGHT_PX = 200;
const MIN_DRAWN = 512;
const GOLDEN_ANGLE = 137.508;

/** What the numbers of LiveView.runs mean below the first holder. */
const EMPTY = 0;
const CACHED = 1;
const LEAVING = 2;
const FIRST_HOLDER = 3;

export function colourOf(seq: number, isDark: boolean): string {
  const hue = (seq * GOLDEN_ANGLE) % 360;
  const light = (isDark ? 58 : 42) + 9 * (seq % 3); // hues come near one another after a few; then the lightness differs
  return `hsl(${hue.toFixed(0)} 58% ${light}%)`;
}

/** What a cell shows, as one number: below FIRST_HOLDER a state, else FIRST_HOLDER + seq; halves are shared. */
function cellsOf(frame: LiveView): Float64Array {
  const cells = new Float64Array(frame.num_blocks);
  let at = 0;
  for (let index = 0; index < frame.runs.length; index += 2) {
    const code = frame.runs[index] ?? EMPTY;
    const length = frame.runs[index + 1] ?? 0;
    const row = code < FIRST_HOLDER ? undefined : frame.running[code - FIRST_HOLDER];
    cells.fill(row === undefined ? Math.min(code, LEAVING) : FIRST_HOLDER + row.seq, at, at + length);
    at += length;
  }
  for (let index = 0; index < frame.shared.length; index += 2) {
    const first = frame.shared[index] ?? 0;
    const end = first + (frame.shared[index + 1] ?? 0);
    for (let block = first; block < end; block++) cells[block] = (cells[block] ?? 0) + 0.5;
  }
  return cells.subarray(0, at);
}

export class BlockMap {
  private cells: Float64Array = new Float64Array(0);
  private columns = 1;
  private cellPx = MAX_CELL_PX;
  private highlighted: number | null = null;
  private numDrawn = MIN_DRAWN;

  constructor(private readonly canvas: HTMLCanvasElement) {}

  /** Show this frame; `isWhole` after the size or the colours have changed. */
  draw(frame: LiveView, highlighted: number | null, isDark: boolean, isWhole: boolean): void {
    const context = this.canvas.getContext("2d");
    if (!context) return;
    const cells = this.cut(cellsOf(frame));
    const isFresh = isWhole || cells.length !== this.cells.length || highlighted !== this.highlighted;
    if (isFresh) this.fit(context, cells.length);
    const empty = colour("--block-empty");
    const cached = colour("--block-cached");
    const leaving = colour("--block-leaving");
    const mark = colour("--block-mark");
    for (let block = 0; block < cells.length; block++) {
      const cell = cells[block] ?? EMPTY;
      if (!isFresh && this.cells[block] === cell) continue;
      const state = Math.floor(cell);
      const seq = state - FIRST_HOLDER;
      const fill = state === EMPTY ? empty : state === CACHED ? cached : state === LEAVING ? leaving : colourOf(seq, isDark);
      const isDimmed = highlighted !== null && seq !== highlighted;
      this.paint(context, block, fill, cell !== state, mark, isDimmed);
    }
    this.cells = cells;
    this.highlighted = highlighted;
  }

  /** Without the end that nobody has used yet; what was drawn once stays, so that nothing jumps. */
  private cut(cells: Float64Array): Float64Array {
    const used = cells.findLastIndex((cell) => cell !== EMPTY) + 1;
    while (this.numDrawn < used) this.numDrawn *= 2;
    return cells.subarray(0, this.numDrawn);
  }

  /** How many of the first blocks are drawn. */
  get length(): number {
    return this.cells.length;
  }

  private fit(context: CanvasRenderingContext2D, numBlocks: number): void {
    const width = this.canvas.parentElement?.clientWidth ?? 600;
    const ideal = Math.floor(Math.sqrt((width * WANTED_HEIGHT_PX) / Math.max(1, numBlocks)));
    this.cellPx = Math.max(MIN_CELL_PX, Math.min(MAX_CELL_PX, ideal));
    this.columns = Math.max(1, Math.floor(width / this.cellPx));
    const height = Math.ceil(numBlocks / this.columns) * this.cellPx;
    const scale = devicePixelRatio || 1;
    this.canvas.width = this.columns * this.cellPx * scale;
    this.canvas.height = height * scale;
    this.canvas.style.width = `${this.columns * this.cellPx}px`;
    this.canvas.style.height = `${height}px`;
    context.setTransform(scale, 0, 0, scale, 0, 0);
  }

  private paint(
    context: CanvasRenderingContext2D,
    block: number,
    fill: string,
    isShared: boolean,
    mark: string,
    isDimmed: boolean,
  ): void {
    const size = this.cellPx;
    const x = (block % this.columns) * size;
    const y = Math.floor(block / this.columns) * size;
    const inner = size - (size > 4 ? 1.5 : 1);
    context.clearRect(x, y, size, size);
    context.globalAlpha = isDimmed ? 0.25 : 1;
    context.fillStyle = fill;
    context.fillRect(x, y, inner, inner);
    if (isShared) this.hatch(context, x, y, inner, mark);
    context.globalAlpha = 1;
  }

  /** Several requests hold it: strokes across, or, where there is no room for any, a point. */
  private hatch(context: CanvasRenderingContext2D, x: number, y: number, size: number, mark: string): void {
    if (size < 6) {
      context.fillStyle = mark;
      context.fillRect(x + size / 3, y + size / 3, size / 3, size / 3);
      return;
    }
    context.strokeStyle = mark;
    context.lineWidth = 1.2;
    context.beginPath();
    for (const from of [0.35, 0.75, 1.15]) {
      const start = Math.max(0, from - 0.75) * size;
      const reach = Math.min(1, from) * size;
      context.moveTo(x + start, y + reach);
      context.lineTo(x + reach, y + start);
    }
    context.stroke();
  }
}

// The line that says what the demo is doing: rewritten in place on a terminal, a plain line per phase elsewhere.

/** Faster than this nobody reads, and a hundred users would write a thousand lines a second. */
const REDRAW_MS = 100;

export class Progress {
  readonly #out: NodeJS.WritableStream;
  readonly #rewrites: boolean;
  #label = '';
  #total = 0;
  #drawnAt = 0;
  #shown = false;

  constructor(out: NodeJS.WritableStream) {
    this.#out = out;
    this.#rewrites = 'isTTY' in out && out.isTTY === true && process.env.TERM !== 'dumb';
  }

  /** A new phase; `total` calls, or 0 when there is nothing to count. */
  begin(label: string, total = 0): void {
    this.#label = label;
    this.#total = total;
    this.#drawnAt = 0;
    if (this.#rewrites) this.update(0);
    else this.#out.write(`${label} ...\n`);
  }

  update(done: number): void {
    if (!this.#rewrites || performance.now() - this.#drawnAt < REDRAW_MS) return;
    this.#drawnAt = performance.now();
    this.#shown = true;
    const count = this.#total > 0 ? `  ${bar(done / this.#total)} ${done}/${this.#total}` : ' ...';
    this.#out.write(`\r\x1b[2K${this.#label}${count}`);
  }

  /** Leaves a clean line for what is printed next. */
  clear(): void {
    if (this.#shown) this.#out.write('\r\x1b[2K');
    this.#shown = false;
  }
}

function bar(share: number): string {
  const filled = Math.round(share * 20);
  return `[${'#'.repeat(filled)}${'.'.repeat(20 - filled)}]`;
}

// A child process of the demo: started with its own bin, its output kept for the moment something goes wrong, always ended.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';

/** bin passes this to itself; given here, it need not start Node twice. */
const V8_FLAGS = ['--max-semi-space-size=4'];
const KEPT_OUTPUT_CHARS = 4096;
const END_GRACE_MS = 3000;

export class Child {
  readonly #process: ChildProcess;
  #output = '';
  #firstLine = '';
  #ended = false;

  constructor(bin: string, args: readonly string[]) {
    this.#process = spawn(process.execPath, [...V8_FLAGS, bin, ...args], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#process.stdout!.setEncoding('utf8').on('data', (text: string) => {
      if (!this.#firstLine.endsWith('\n')) this.#firstLine += text.slice(0, text.indexOf('\n') + 1 || text.length);
      this.#keep(text);
    });
    this.#process.stderr!.setEncoding('utf8').on('data', (text: string) => this.#keep(text));
    this.#process.stdin!.on('error', () => {}); // it may end before we close its stdin
    this.#process.once('error', (error) => {
      this.#keep(error.message);
      this.#ended = true;
    });
    // 'close' rather than 'exit': only then all it printed has been read.
    this.#process.once('close', () => {
      this.#ended = true;
    });
    // The last resort, for a demo that ends without its own clean-up.
    process.once('exit', this.#kill);
  }

  get ended(): boolean {
    return this.#ended;
  }

  /** The end of what it printed. */
  get output(): string {
    return this.#output.trim();
  }

  /** Its first line on stdout, once that is whole. */
  get firstLine(): string | null {
    return this.#firstLine.endsWith('\n') ? this.#firstLine.trim() : null;
  }

  /** Closes stdin, asks with SIGTERM if `politely`, and kills what is left after a while. */
  async end(politely: boolean): Promise<void> {
    process.off('exit', this.#kill);
    if (this.#ended) return;
    const closed = once(this.#process, 'close');
    this.#process.stdin!.end();
    if (politely) this.#process.kill('SIGTERM');
    const timer = setTimeout(this.#kill, END_GRACE_MS);
    await closed;
    clearTimeout(timer);
  }

  readonly #kill = (): void => {
    this.#process.kill('SIGKILL');
  };

  #keep(text: string): void {
    this.#output = (this.#output + text).slice(-KEPT_OUTPUT_CHARS);
  }
}

// One direction of a slow wire: what one socket receives the other sends a fixed time later, in order and within a byte limit.
import type { Socket } from 'node:net';

/** Bytes held at most before the sender is paused: at 20 ms one way this still passes 50 MB/s. */
const HELD_LIMIT_BYTES = 1 << 20;
// Timers count in whole milliseconds, so one may fire a little before the parcel's own time.
const TIMER_SLACK_MS = 0.5;

/** Bytes, or the end of the stream (null), and when they are due. */
interface Parcel {
  readonly dueAt: number;
  readonly bytes: Buffer | null;
}

export class DelayLine {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #delayMs: number;
  readonly #parcels: Parcel[] = [];
  #heldBytes = 0;
  #timer: NodeJS.Timeout | undefined;
  #waitsForDrain = false;
  #stopped = false;
  #ended = false;

  constructor(from: Socket, to: Socket, delayMs: number) {
    this.#from = from;
    this.#to = to;
    this.#delayMs = delayMs;
    from.on('data', (bytes: Buffer) => this.#accept(bytes));
    from.on('end', () => {
      this.#ended = true;
      this.#accept(null);
    });
    to.on('drain', () => {
      this.#waitsForDrain = false;
      this.#arm();
    });
  }

  /** The sender said that nothing more follows. */
  get ended(): boolean {
    return this.#ended;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Drops what is on the way. Later bytes are read and dropped too, so that the sender's end is still seen. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#parcels.length = 0;
    this.#heldBytes = 0;
    this.#from.resume();
  }

  #accept(bytes: Buffer | null): void {
    if (this.#stopped) return;
    this.#parcels.push({ dueAt: performance.now() + this.#delayMs, bytes });
    this.#heldBytes += bytes?.length ?? 0;
    if (this.#heldBytes >= HELD_LIMIT_BYTES) this.#from.pause();
    this.#arm();
  }

  #arm(): void {
    const next = this.#parcels[0];
    if (next === undefined || this.#timer !== undefined || this.#waitsForDrain) return;
    this.#timer = setTimeout(() => this.#release(), Math.max(0, next.dueAt - performance.now()));
  }

  #release(): void {
    this.#timer = undefined;
    const now = performance.now() + TIMER_SLACK_MS;
    while (this.#parcels.length > 0 && this.#parcels[0]!.dueAt <= now && !this.#waitsForDrain) {
      const { bytes } = this.#parcels.shift()!;
      if (bytes === null) this.#to.end();
      else this.#send(bytes);
    }
    if (this.#heldBytes < HELD_LIMIT_BYTES / 2 && this.#from.isPaused()) this.#from.resume();
    this.#arm();
  }

  #send(bytes: Buffer): void {
    this.#heldBytes -= bytes.length;
    this.#waitsForDrain = !this.#to.write(bytes);
  }
}

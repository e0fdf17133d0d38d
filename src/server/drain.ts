// Ends the process in order: no longer ready, no new connections, what runs may finish, the rest is cut.

import type { ListenerStats } from '../observe/stats.ts';
import type { Listener } from './listener.ts';

/** For last answers to leave. */
const GOODBYE_MS = 250;

export interface DrainTimes {
  /** New connections are still served for so long, so that who routes here can notice. */
  readonly acceptForMs: number;
  readonly timeoutMs: number;
}

export class Drain {
  readonly #times: DrainTimes;
  readonly #listeners: readonly Listener[];
  readonly #stats: ListenerStats;
  #started: Promise<number> | null = null;
  #hurry = (): void => {};
  readonly #hurried = new Promise<void>((resolve) => {
    this.#hurry = resolve;
  });

  constructor(times: DrainTimes, listeners: readonly Listener[], stats: ListenerStats) {
    this.#times = times;
    this.#listeners = listeners;
    this.#stats = stats;
  }

  get draining(): boolean {
    return this.#started !== null;
  }

  /** @returns the number of exchanges that were cut; the same promise however often it is asked */
  start(): Promise<number> {
    this.#started ??= this.#run();
    return this.#started;
  }

  /** Cuts what runs now. */
  hurry(): void {
    this.#hurry();
  }

  async #run(): Promise<number> {
    if (this.#times.acceptForMs > 0) await this.#atMost(this.#times.acceptForMs, this.#hurried);
    const closed = Promise.all(this.#listeners.map((listener) => listener.stopAccepting()));
    await this.#atMost(this.#times.timeoutMs, Promise.race([closed, this.#hurried]));
    const cut = this.#stats.inFlight;
    for (const listener of this.#listeners) listener.cutAll();
    await this.#atMost(GOODBYE_MS, closed);
    for (const listener of this.#listeners) listener.resetAll();
    await closed;
    return cut;
  }

  async #atMost(ms: number, done: Promise<unknown>): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, Math.min(ms, 2 ** 31 - 1));
    });
    await Promise.race([late, done]);
    clearTimeout(timer);
  }
}

// Says once that a queue is long, once that it is very long, and once that it is well again.

export type QueueLevel = 'well' | 'warning' | 'alert';

/** Queue lengths of the seed's ops rules: "should be < 10", "alert if > 20". */
const WARNING_ABOVE = 10;
const ALERT_ABOVE = 20;
/** Well again is a queue at or below half the warning, for so many pulses in a row: a queue that swings does not chatter. */
const WELL_AT = WARNING_ABOVE / 2;
const WELL_PULSES = 5;

export class QueueAlarm {
  level: QueueLevel = 'well';
  #calmPulses = 0;

  /** @returns the level just reached, or null when there is nothing new to say */
  grown(queued: number): QueueLevel | null {
    // A burst that comes and goes between two pulses is not calm either.
    if (queued > WARNING_ABOVE) this.#calmPulses = 0;
    if (queued > ALERT_ABOVE && this.level !== 'alert') return this.#to('alert');
    if (queued > WARNING_ABOVE && this.level === 'well') return this.#to('warning');
    return null;
  }

  /** Once a second. */
  pulse(queued: number): QueueLevel | null {
    if (this.level === 'well') return null;
    this.#calmPulses = queued <= WELL_AT ? this.#calmPulses + 1 : 0;
    return this.#calmPulses >= WELL_PULSES ? this.#to('well') : null;
  }

  #to(level: QueueLevel): QueueLevel {
    this.level = level;
    this.#calmPulses = 0;
    return level;
  }
}

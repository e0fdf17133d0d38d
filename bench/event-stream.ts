// The events of the stream bench: about 120 bytes each, with the moment they were sent, on a clock that all processes of the machine share.
import { performance } from 'node:perf_hooks';

export const EVENTS_PER_SECOND = 20;
/** Monotonic time less performance.now(), µs. */
const OFFSET = Number(process.hrtime.bigint() / 1000n) - performance.now() * 1000;
/** Added, so that all have as many digits. */
const BASE = 1e15;
const DIGITS = 16;
const MARK = Buffer.from('{"sent":');

/** µs since the start of the machine. */
export function microsNow(): number {
  return OFFSET + performance.now() * 1000;
}

/** A whole chunk with one event, as an API of chat completions sends them. */
export function eventChunk(micros: number): string {
  const sent = BASE + Math.round(micros);
  const event = `data: {"sent":${sent},"choices":[{"index":0,"delta":{"content":" oatmeal"},"finish_reason":null}],"usage":null}\n\n`;
  return `${event.length.toString(16)}\r\n${event}\r\n`;
}

/** Calls back with the moment each event in these bytes was sent. One whose moment is not whole in them is left out. */
export function eachEvent(bytes: Buffer, seen: (micros: number) => void): void {
  for (let at = bytes.indexOf(MARK); at >= 0; at = bytes.indexOf(MARK, at + DIGITS)) {
    const start = at + MARK.length;
    if (start + DIGITS > bytes.length) return;
    seen(Number(bytes.toString('latin1', start, start + DIGITS)) - BASE);
  }
}
